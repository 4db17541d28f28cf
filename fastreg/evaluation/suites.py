"""The suites by name, and the conditions each one runs. A condition is one pass over the set: the unit of resuming."""

from __future__ import annotations

from collections.abc import Iterable

from fastreg.errors import InputError, unknown

SUITES = {
    "clean": "top-1 and top-5 error on the unchanged images",
    "fgsm": "one step of the sign of the gradient, epsilon 8/255 in pixel space",
    "pgd": "ten projected steps from a random start, epsilon 8/255",
    "occlusion": "a black square at the centre, side half the width",
    "imagenet-c": "15 corruptions at 5 severities with ImageNet-C's constants",
    "cifar-c": "15 corruptions at 5 severities with CIFAR-C's constants",
    "calibration": "ECE with 20 bins, Brier score and likelihood on the unchanged images",
    "confidence": "average top-1 probability on the unchanged images (Figure 1)",
    "ood": "detection error of the largest softmax probability, mean over seven sets",
    "paper": "everything that the paper reports for the data set",
}
# suites that read the clean pass and run nothing of their own
DERIVED = ("calibration", "confidence")
CORRUPTED = ("imagenet-c", "cifar-c")
SEVERITIES = (1, 2, 3, 4, 5)
# the paper's seven out-of-distribution sets: five of photographs -> the folders they may lie in (this project's name,
# then the one in ODIN's archive), and two that are drawn
PHOTOGRAPHS = {
    "tiny_imagenet_crop": ("tiny_imagenet_crop", "Imagenet"),
    "tiny_imagenet_resize": ("tiny_imagenet_resize", "Imagenet_resize"),
    "lsun_crop": ("lsun_crop", "LSUN"),
    "lsun_resize": ("lsun_resize", "LSUN_resize"),
    "isun": ("isun", "iSUN"),
}
NOISES = ("gaussian", "uniform")
OOD_SETS = (*PHOTOGRAPHS, *NOISES)
OOD_IMAGES = {name: 8_925 if name == "isun" else 10_000 for name in OOD_SETS}
_CIFAR = ("clean", "fgsm", "cifar-c", "occlusion", "calibration", "ood", "confidence")
_IMAGENET = ("clean", "fgsm", "occlusion", "imagenet-c", "confidence")
_PAPER = {"cifar10": _CIFAR, "cifar100": _CIFAR, "imagenet": _IMAGENET}


def resolve(suites: str | Iterable[str], size: int, data: str = "") -> list[str]:
    """Suite names in canonical order, from one name, a comma-separated string or a list; ``paper`` is spelled out.

    ``paper`` is what the paper reports for the data set named ``data``; of arrays, folders and other sets the image
    side ``size`` decides: 32 px is as CIFAR. Raises InputError for an unknown name, or none.
    """
    names = suites.split(",") if isinstance(suites, str) else list(suites or ())
    if not names:
        raise InputError(f"no suite was named: known are {', '.join(SUITES)}.")
    wanted: set[str] = set()
    paper = _PAPER.get(data, _CIFAR if size == 32 else _IMAGENET)
    for name in (n.strip() for n in names):
        if name not in SUITES:
            raise unknown("suite", name, SUITES)
        wanted.update(paper if name == "paper" else (name,))
    if wanted & {*DERIVED, "ood"}:
        wanted.add("clean")
    return [name for name in SUITES if name in wanted]


def corruption_conditions(
    corruptions: str | Iterable[str] | None, severities: Iterable[int] | None
) -> list[tuple[str, int]]:
    """(name, severity) pairs of a corruption suite; None means all 15, or all five. Raises InputError when unknown."""
    from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS

    known = [*CORRUPTIONS, *EXTRA_CORRUPTIONS]
    if isinstance(corruptions, str):
        corruptions = [name.strip() for name in corruptions.split(",")]
    names = list(dict.fromkeys(corruptions or CORRUPTIONS))
    for name in names:
        if name not in known:
            raise unknown("corruption", name, known)
    chosen = sorted(set(severities or SEVERITIES))
    if not set(chosen) <= set(SEVERITIES):
        raise InputError(f"severities are 1 to 5, but {', '.join(map(str, chosen))} were asked for.")
    return [(name, severity) for name in names for severity in chosen]
