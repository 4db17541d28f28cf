"""The differences between a run of a paper recipe and the original code, as a table.

A row applies to a run by its settings. docs/departures.md and RECIPES.md are written from the table, and reports name
the rows that apply to a run.

Source: CutMix-PyTorch (train.py, utils.py); Lee et al., Confident_classifier (run_joint_confidence.py); the ShakeDrop
authors' code; Chun et al. 2020 (arXiv 2003.03879) for what is not given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fastreg.faithful import PER_GPU
from fastreg.methods.base import GROUP

PIXELS = ("folder", "resident")  # loaders whose pixels are Pillow's
Settings = Mapping[str, Any]


class Departure(NamedTuple):
    """A row of the table.

    Args:
        topic: what differs, in one or two words.
        original: the original code.
        here: fastreg.
        effect: the expected effect on results.
        remedy: the flag that restores the original; empty if there is none.
        applies: whether settings, as in config.json, have this difference.
    """

    topic: str
    original: str
    here: str
    effect: str
    remedy: str
    applies: Callable[[Settings], bool]


def _methods(settings: Settings) -> list[str]:
    return str(settings.get("reg") or "none").split("+")


def _argument(settings: Settings, method: str, name: str) -> Any:
    own = settings.get("reg_args") or {}
    return own.get(f"{method}_{name}", own.get(name)) if isinstance(own, Mapping) else None


def _precision(settings: Settings) -> str:
    return str(settings.get("precision_used", settings.get("precision")))


def _on_gpu(settings: Settings) -> bool:
    return settings.get("device_used", settings.get("device")) != "cpu"


def _per_gpu(settings: Settings) -> int:
    return PER_GPU["cifar" if str(settings.get("dataset")).startswith("cifar") else "imagenet"]


def _partners(settings: Settings) -> int:
    """Images among which a partner is drawn."""
    return min(int(settings.get("batch_size") or GROUP), GROUP)


_ROUNDING = "rounding only: none expected beyond the spread over seeds; not measured"
TABLE = (
    Departure(
        "precision",
        "float32",
        "on a GPU bfloat16 (float16 before sm_80)",
        _ROUNDING,
        "`--precision fp32`",
        lambda s: _precision(s) != "fp32",
    ),
    Departure(
        "TF32",
        "products of float32",
        "with `--precision fp32` on a GPU products of TF32, with 10 bits of fraction",
        _ROUNDING,
        "`--no-tf32`",
        lambda s: bool(s.get("tf32", True)) and _precision(s) == "fp32" and _on_gpu(s),
    ),
    Departure(
        "batch norm",
        "statistics of 32 (CIFAR) or 64 (ImageNet) images, those of a GPU",
        "statistics of the micro-batch: the whole global batch on one GPU",
        "smaller micro-batches add noise, which regularizes: a lower training loss here; size not measured",
        "`--batch-size 32 --grad-accum-steps 2` (CIFAR), `--batch-size 64 --grad-accum-steps 4` (ImageNet)",
        lambda s: s.get("batch_size") not in (None, _per_gpu(s)),
    ),
    Departure(
        "running statistics",
        "those of the first GPU's share of each batch",
        "their mean over all micro-batches and ranks",
        "less noise in the statistics of the evaluation; none expected in the mean",
        "",
        lambda s: True,
    ),
    Departure(
        "last batch",
        "a partial batch is trained",
        "a partial batch is dropped: 781 steps per epoch instead of 782 at batch 64 on CIFAR",
        "at most 0.03 % fewer images per epoch; none expected",
        "`--no-drop-last`",
        lambda s: bool(s.get("drop_last", True)),
    ),
    Departure(
        "mixing partners",
        "a permutation of the global batch",
        "a permutation inside groups of 64 images, or of the micro-batch if it is smaller",
        "none expected: partners are random images either way",
        "",
        lambda s: bool({"mixup", "cutmix"} & set(_methods(s))) and _partners(s) < int(s.get("global_batch") or 0),
    ),
    Departure(
        "ShakeDrop",
        "one Bernoulli draw per layer and GPU",
        "one Bernoulli draw per layer and global batch",
        "the same branches are dropped for the whole batch: more noise per step; size not measured",
        """`--reg-args '{"shakedrop_gates": "share"}'`""",
        lambda s: "shakedrop" in _methods(s) and _argument(s, "shakedrop", "gates") != "share",
    ),
    Departure(
        "color jitter",
        "float pixels, never clipped",
        "clipped and rounded to bytes after the last of its operations",
        "weaker jitter of bright and dark images; size not measured",
        "`--no-color-clip`",
        lambda s: bool(s.get("color_clip", True)) and bool(s.get("color_jitter") or s.get("lighting")),
    ),
    Departure(
        "decoding",
        "Pillow",
        "Pillow's pixels with `--loader folder` and `resident`; `dali` and `ffcv` give slightly different ones",
        "small: the table of loaders has the differences in levels",
        "`--loader folder`",
        lambda s: s.get("loader_used", s.get("loader")) not in (*PIXELS, "auto"),
    ),
    Departure(
        "best epoch",
        "the last of the epochs with the lowest error",
        "the first of them",
        "none on the clean error; other figures are of another epoch if there is a tie",
        "`--best-of-ties last`",
        lambda s: s.get("best_of_ties", "first") == "first",
    ),
    Departure(
        "OOD passes",
        "in- and out-of-distribution images in two passes",
        "one pass, so batch norm normalizes both together",
        "other batch statistics, so another loss on the same weights; size not measured",
        """`--reg-args '{"passes": 2}'`""",
        lambda s: _ood(s) != "" and _argument(s, _ood(s), "passes") != 2,
    ),
    Departure(
        "GAN",
        "generator trained jointly with the classifier, KL weight 0.1 on CIFAR",
        "generator trained before the classifier, KL weight 1",
        "images at the edge of the training set instead of images like it; size not measured",
        """`--reg-args '{"joint": true, "weight": 0.1}'`""",
        lambda s: _ood(s) == "ood_gan" and not _argument(s, "ood_gan", "joint"),
    ),
    Departure(
        "GAN's rates",
        "not given for WGAN-GP: the code of Lee et al. trains another GAN",
        "five critic updates per step, Adam at 2e-4 without decay",
        "not known",
        "",
        lambda s: _ood(s) == "ood_gan",
    ),
    Departure(
        "noise strength",
        "not given: the noise of CIFAR-C",
        "CIFAR-C's five strengths, on half of the images",
        "not known",
        "",
        lambda s: "gaussian_noise" in _methods(s),
    ),
    Departure(
        "Adam's rate",
        "not given",
        "0.001 with the schedule of the other rows",
        "not known",
        "",
        lambda s: bool({"adversarial", "alp"} & set(_methods(s))),
    ),
    Departure(
        "AugMix",
        "chains are mixed and truncated to bytes (torchvision), or mixed after normalization (authors)",
        "mixed in float32 and rounded to bytes once",
        "rounding only; not measured",
        "",
        lambda s: "augmix" in _methods(s),
    ),
    Departure(
        "translations",
        "RandAugment and AugMix of timm: by fractions of a pixel, bilinear or bicubic",
        "rounded to whole pixels",
        "at most half a pixel, a mean of 1.5 to 2.0 levels on photographs of 224 px; accuracy not measured",
        "",
        lambda s: bool({"rand_augment", "augmix"} & set(_methods(s))),
    ),
    Departure(
        "repeats",
        "repeated augmentation: the repeats of an image alternate over the ranks",
        "ordered by repeat in the global batch: the same images, and different repeats on each of as many ranks",
        "none expected",
        "",
        lambda s: int(s.get("aug_repeats") or 1) > 1,
    ),
)


def _ood(settings: Settings) -> str:
    return next((name for name in _methods(settings) if name.startswith("ood_")), "")


def departures(settings: Settings) -> list[Departure]:
    """The rows that apply to a run.

    Args:
        settings: as in config.json of the run.
    """
    return [row for row in TABLE if row.applies(settings)]


def departure_table() -> str:
    """All rows as a Markdown table, numbered."""
    lines = ["| | topic | the source | fastreg | expected effect | restored by |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {number} | {row.topic} | {row.original} | {row.here} | {row.effect} | {row.remedy or 'nothing'} |"
        for number, row in enumerate(TABLE, 1)
    ]
    return "\n".join(lines)


def numbers(rows: list[Departure]) -> str:
    """The numbers of rows in the table: ``1, 3-5``."""
    found = [TABLE.index(row) + 1 for row in rows]
    words: list[str] = []
    for n in found:
        if n - 1 in found and n + 1 in found:
            continue
        if n - 1 in found and n - 2 in found:
            words[-1] += f"-{n}"
        else:
            words.append(str(n))
    return ", ".join(words)
