"""What each suite runs: its settings and its steps. Everything that may be missing is found here, before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fastreg.errors import InputError
from fastreg.evaluation import conditions, official, ood
from fastreg.evaluation.canvas import Pixels
from fastreg.evaluation.conditions import Logits
from fastreg.evaluation.subject import Subject
from fastreg.evaluation.suites import corruption_conditions


class Options(NamedTuple):
    """What the suites can be told; see :func:`fastreg.evaluation.evaluate`."""

    seed: int
    epsilon: float
    clip: bool
    fidelity: str
    constants: str
    corruptions: str | Iterable[str] | None
    severities: Iterable[int] | None
    frost_dir: str | Path | None
    imagenet_c_dir: str | Path | None
    cifar_c_dir: str | Path | None
    ood_dir: str | Path | None
    odin_split: bool


class Place(NamedTuple):
    """Where this process runs and how it reads."""

    device: Any
    rank: int
    world: int
    batch_size: int
    loading: dict[str, Any]  # loader, workers


class Step(NamedTuple):
    """One condition. ``batches`` None: the canvas. ``out``: its confidences are compared with the clean ones."""

    logits: Logits
    batches: Callable[[Place], Iterator[Pixels]] | None = None
    n: int | None = None  # images, when they are not the canvas's
    extra: Mapping[str, Any] = MappingProxyType({})  # goes into the row; ``fingerprint`` is that of the files it reads
    out: bool = False


class Work(NamedTuple):
    settings: dict[str, Any]
    steps: dict[str, Step]


def plan(suite: str, subject: Subject, options: Options) -> Work:
    """The work of one suite that is not derived. Raises InputError for what it cannot find or cannot fit."""
    if suite == "clean":
        return Work({}, {"clean": Step(conditions.clean)})
    if suite == "occlusion":
        return Work({"side": subject.size // 2}, {"occlusion": Step(conditions.occlusion)})
    if suite in ("fgsm", "pgd"):
        steps = 1 if suite == "fgsm" else conditions.PGD_STEPS
        settings = {"epsilon": options.epsilon, "clip": options.clip, "steps": steps}
        run = conditions.attack(epsilon=options.epsilon, clip=options.clip, steps=steps, seed=options.seed)
        return Work(settings, {suite: Step(run)})
    if suite == "ood":
        return Work(*ood.steps(subject, options))
    folder = options.imagenet_c_dir if suite == "imagenet-c" else options.cifar_c_dir
    if folder is not None:
        read = official.imagenet_c if suite == "imagenet-c" else official.cifar_c
        return Work(*read(Path(folder), subject, corruption_conditions(options.corruptions, options.severities)))
    return _generated(suite, subject, options)


def _generated(suite: str, subject: Subject, options: Options) -> Work:
    from fastreg.kernels.corruptions.constants import resolve

    if (suite == "cifar-c") != (subject.size == 32) and options.constants == "auto":
        right = "cifar-c" if subject.size == 32 else "imagenet-c"
        raise InputError(
            f"{suite} does not fit {subject.size} px images: use --suite {right}, or choose --constants by name."
        )
    try:
        constants = resolve(options.constants, subject.size)
    except ValueError as error:
        raise InputError(str(error)) from error
    pairs = corruption_conditions(options.corruptions, options.severities)
    textures = None
    if any(name == "frost" for name, _ in pairs):
        from fastreg.pipelines.frost import load_frost

        textures = load_frost(options.frost_dir)
    fidelity = options.fidelity if suite == "imagenet-c" else "dataset"  # CIFAR-C's arrays have no JPEG step
    jpeg = suite == "imagenet-c" and fidelity == "dataset"
    settings = {"from": "generated", "fidelity": fidelity, "jpeg": 85 if jpeg else None, "constants": constants}
    steps = {
        f"{name}/{severity}": Step(
            conditions.corruption(name, severity, seed=options.seed, constants=constants, jpeg=jpeg, textures=textures)
        )
        for name, severity in pairs
    }
    return Work(settings, steps)
