"""ImageNet-P and CIFAR-10-P: stability of predictions over sequences of slightly different frames.

Figures: flip probability and top-5 distance, means over the ten perturbations. mFR, the flip probabilities over
AlexNet's, is printed for ImageNet-P's files alone. AlexNet was measured on their frames, which the video encoder has
changed, noise most of all: the same ratio on generated frames would compare two models on different images.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019), section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fastreg import metrics
from fastreg.errors import InputError, unknown
from fastreg.evaluation import corruption_suite, perturbed_files
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.perturbed_files import reference
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.sequences import WholeImageBatches, sequence_condition
from fastreg.evaluation.types import Condition, Figure, Suite, SuitePlan, Table
from fastreg.kernels import EXTRA_PERTURBATIONS, PERTURBATIONS, perturb, perturbation_frames
from fastreg.kernels.corruptions.constants import CONSTANTS as CORRUPTION_CONSTANTS
from fastreg.kernels.perturbations import reads_whole_images
from fastreg.kernels.perturbations.constants import CONSTANTS, SIZES

CIFAR = tuple("spatter" if name == "snow" else name for name in PERTURBATIONS)  # as its published evaluation
GENERATED = "uncompressed"
OTHER_SIZES = CORRUPTION_CONSTANTS.keys() - CONSTANTS.keys()  # only corruptions have them: the nearest stand in


class PublishedSet(NamedTuple):
    """What a suite knows of its published set.

    Args:
        ten: the perturbations of the totals.
        cifar: whether it is made of CIFAR's images.
        videos: whether its files are compressed.
        read: returns the plan over its files.
        folder: the option that names them.
        other: the suite for the other image size.
    """

    ten: tuple[str, ...]
    cifar: bool
    videos: bool
    read: Callable[[Path, EvalData, Sequence[str]], SuitePlan]
    folder: str
    other: str


SETS = {
    "imagenet-p": PublishedSet(PERTURBATIONS, False, True, perturbed_files.imagenet_p, "imagenet_p_dir", "cifar-p"),
    "cifar-p": PublishedSet(CIFAR, True, False, perturbed_files.cifar_p, "cifar_p_dir", "imagenet-p"),
}


def perturbation_names(asked: str | Iterable[str] | None, suite: str) -> tuple[str, ...]:
    """Names of perturbations, also joined by commas; None: the suite's ten. Raises InputError for an unknown one."""
    words = asked.split(",") if isinstance(asked, str) else asked
    names = tuple(dict.fromkeys(name.strip() for name in words or SETS[suite].ten))
    for name in names:
        if name not in (*PERTURBATIONS, *EXTRA_PERTURBATIONS):
            raise unknown("perturbation", name, [*PERTURBATIONS, *EXTRA_PERTURBATIONS])
    return names


def build(eval_data: EvalData, config: EvalConfig, *, suite: str) -> SuitePlan:
    """The conditions of a suite: one per perturbation, over the published files or generated frames.

    Raises InputError for an unknown perturbation, images of the other suite's size, or missing files.
    """
    names, size = perturbation_names(config.perturbations, suite), eval_data.size
    _, cifar, _, read, folder, other = SETS[suite]
    if (files := getattr(config, folder)) is not None:
        return read(Path(files), eval_data, names)
    if cifar != (size == corruption_suite.CIFAR_SIZE) and (cifar or eval_data.name != "imagenet"):
        raise InputError(f"{suite} does not fit {size} px images: use the suite {other}.")
    constants = config.constants
    if constants in ("auto", *OTHER_SIZES):
        constants = SIZES[min(SIZES, key=lambda side: abs(math.log(size / side)))]
    if constants not in CONSTANTS:
        known = ", ".join(CONSTANTS)
        raise InputError(f"`constants` is {constants}, which {suite} does not have: give auto, or one of {known}.")
    # frames that move show what surrounds the center crop; images stored at their size have no surroundings
    whole = eval_data.source is not None and eval_data.source.layout == "folder"
    given = {"seed": config.seed, "constants": constants, "size": size}
    settings: dict[str, Any] = {"from": "generated", "fidelity": GENERATED, "constants": constants}
    settings |= {"surroundings": False} if not whole and not cifar else {}
    return SuitePlan(settings, {name: _generated(name, eval_data, whole, given) for name in names})


def _generated(name: str, eval_data: EvalData, whole: bool, given: dict[str, Any]) -> Condition:
    def make(batch: Any) -> Tensor:
        extents = getattr(batch, "extents", None)
        return perturb(batch.images, name, indices=batch.indices, extents=extents, **given)

    batches = WholeImageBatches(eval_data) if whole and reads_whole_images(name) else None
    return sequence_condition(make, perturbation_frames(name, given["constants"]), reference(name), batches=batches)


def missing(card: ScorecardData, suite: str) -> list[str]:
    """The perturbations that the totals lack, those of other images than the data's among them."""
    rows = card.results(suite)
    whole = {name for name, row in rows.items() if row["n"] == card.data["n"] and not row.get("differs")}
    return [name for name in SETS[suite].ten if name not in whole]


def has_rates(card: ScorecardData, suite: str) -> bool:
    """Whether AlexNet's flip probabilities were measured on the same frames: ImageNet-P's files."""
    official = (
        card.is_imagenet and card.data["size"] == 224 and card.suite_settings(suite).get("from") == "official files"
    )
    return SETS[suite].videos and official


def totals(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The means of a complete suite; empty for a partial suite."""
    if not card.results(suite) or missing(card, suite):
        return {}
    rows, key = [card.results(suite)[name] for name in SETS[suite].ten], suite.replace("-", "_")
    means = {
        f"{key}_{part}": sum(row[part] for row in rows) / len(rows) for part in ("flip_probability", "top5_distance")
    }
    if has_rates(card, suite):
        means["mfr"] = metrics.mean_flip_rate(_shares(card, suite))
    return means


def _shares(card: ScorecardData, suite: str) -> dict[str, float]:
    return {name: row["flip_probability"] / 100 for name, row in card.results(suite).items()}


def altered(card: ScorecardData, suite: str) -> list[str]:
    """Departures from the published set."""
    settings, size, messages = card.suite_settings(suite), card.data["size"], []
    if settings.get("fidelity") == GENERATED and SETS[suite].videos:
        messages.append(
            "generated, uncompressed: without the video compression of the published frames, so without mFR"
        )
    constants = settings.get("constants")
    if constants and SIZES.get(size) != constants:
        side = next(side for side, name in SIZES.items() if name == constants)
        messages.append(f"constants {constants}, made for {side} px")
    if settings.get("surroundings") is False:
        messages.append("frames that move have black borders, because the images are stored without surroundings")
    return messages


def notes(card: ScorecardData, suite: str) -> list[str]:
    """Missing perturbations, files that differ from the data, and frames without a prediction."""
    messages = []
    if card.results(suite) and (lacking := missing(card, suite)):
        messages.append(f"{suite} is partial, so it has no total; missing: {', '.join(lacking)}.")
    messages += corruption_suite.other_files(card, suite)
    if bad := sum(row["nonfinite_frames"] for row in card.results(suite).values()):
        messages.append(
            f"{suite}: {bad:,} frames gave NaN logits; each of their pairs counts as a flip with the largest distance."
        )
    return messages


def tables(card: ScorecardData, suite: str) -> list[Table]:
    """The figures by perturbation."""
    rows, settings = card.results(suite), card.suite_settings(suite)
    if not rows:
        return []
    known = {name: share for name, share in _shares(card, suite).items() if name in PERTURBATIONS}
    rates = metrics.flip_rates(known) if has_rates(card, suite) else {}
    how = ", ".join(str(settings[key]) for key in ("from", "fidelity", "constants") if settings.get(key))
    headings = ["perturbation", "frames", "flip prob., %", *(["FR, %"] if rates else []), "T5D", "error, %"]
    lines: list[list[str | float | None]] = []
    for name, row in rows.items():
        rate = [rates.get(name)] if rates else []
        lines.append([name, str(row["frames"]), row["flip_probability"], *rate, row["top5_distance"], row["error"]])
    return [Table(f"{suite}: stability of predictions ({how})", headings, lines)]


def _figures(suite: str, heading: str) -> dict[str, Figure]:
    key = suite.replace("-", "_")
    about = "mean of ten perturbations"
    return {
        f"{key}_flip_probability": Figure(f"{heading} flips", f"flip probability, {about}"),
        f"{key}_top5_distance": Figure(f"{heading} T5D", f"top-5 distance, {about}", "of 15", secondary=True),
    }


def _suite(suite: str, heading: str, kind: str, rates: dict[str, Figure]) -> Suite:
    about = "CIFAR-10-P, 32 px" if kind == "cifar" else "ImageNet-P"
    return Suite(
        suite,
        f"{about}: changes of the prediction over the frames of 10 perturbations (Hendrycks and Dietterich 2019)",
        partial(build, suite=suite),
        figures={**rates, **_figures(suite, heading)},
        summary=totals,
        kinds=(kind,),
        altered=altered,
        notes=notes,
        tables=tables,
    )


_MFR = Figure("mFR", "mean flip rate, of the published files", "% of AlexNet's")
SUITES = (_suite("imagenet-p", "P", "imagenet", {"mfr": _MFR}), _suite("cifar-p", "CIFAR-P", "cifar", {}))
