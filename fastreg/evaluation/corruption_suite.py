"""ImageNet-C and CIFAR-C: generated, or read from the published files; their totals, notes and table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastreg import metrics
from fastreg.errors import InputError
from fastreg.evaluation import conditions
from fastreg.evaluation.conditions import SEVERITIES, corruption_conditions
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, Figure, NoCorruption, SuitePlan, Table
from fastreg.kernels import C_BAR_CORRUPTIONS, CORRUPTIONS, EXTRA_CORRUPTIONS
from fastreg.metrics.corruption import CATEGORIES

Read = Callable[[Path, EvalData, Sequence[tuple[str, int]]], SuitePlan]
CIFAR_SIZE = 32
_KINDS = {name: name.capitalize() for name in CATEGORIES}


def build(
    eval_data: EvalData,
    config: EvalConfig,
    *,
    suite: str,
    other: str,
    folder: str | Path | None,
    read: Read,
    jpeg: bool,
) -> SuitePlan:
    """The conditions of a corruption suite.

    Args:
        eval_data: the images that are corrupted.
        config: of the whole evaluation.
        suite: its name.
        other: the suite for the other image size (CIFAR's for ``imagenet-c``, larger for ``cifar-c``), for messages.
        folder: folder of the published files; None: generate the images.
        read: returns the plan over these files.
        jpeg: whether the published files are JPEG files; generated images then get the JPEG step.

    Raises:
        InputError: images of the other suite's size, no constants for the size, missing files.
        NoCorruption: none of the corruptions asked for is of the suite.
    """
    pairs = corruption_conditions(config.corruptions, config.severities)
    pairs = [pair for pair in pairs if pair[0] not in C_BAR_CORRUPTIONS]  # they are a suite of their own
    if not pairs:
        raise NoCorruption(suite, config.corruptions, (*CORRUPTIONS, *EXTRA_CORRUPTIONS))
    if folder is not None:
        return read(Path(folder), eval_data, pairs)
    # ImageNet may be trained and evaluated at any size
    fits = jpeg != (eval_data.size == CIFAR_SIZE) or (jpeg and eval_data.name == "imagenet")
    if not fits and config.constants == "auto":
        raise InputError(
            f"{suite} does not fit {eval_data.size} px images: use the suite {other}, or choose `constants` by name."
        )
    constants, scale = conditions.nearest_constants(config.constants, eval_data.size)
    textures = None
    if any(name == "frost" for name, _ in pairs):
        textures = conditions.frost_textures(config.frost_dir, eval_data.size, constants, scale)
    fidelity = config.fidelity if jpeg else "dataset"  # arrays have no JPEG step that could be left out
    jpeg = jpeg and fidelity == "dataset"
    settings: dict[str, Any] = {
        "from": "generated",
        "fidelity": fidelity,
        "jpeg": 85 if jpeg else None,
        "constants": constants,
    }
    settings |= {"frost_scale": scale} if scale != 1 else {}
    given: dict[str, Any] = {"seed": config.seed, "constants": constants, "jpeg": jpeg, "textures": textures}
    return SuitePlan(
        settings,
        {f"{name}/{severity}": Condition(conditions.corruption(name, severity, **given)) for name, severity in pairs},
    )


def figures(suite: str, heading: str) -> dict[str, Figure]:
    """The raw errors: by category, and the mean."""
    key = suite.replace("-", "_")
    beside = {
        f"{key}_{kind}": Figure(f"{name} err", "raw top-1 error", unless="mce", share=True)
        for kind, name in _KINDS.items()
    }
    about = "expected calibration error, 20 bins, mean of 75 conditions"
    ece = {f"{key}_ece": Figure(f"{heading} ECE", about, secondary=True)}
    return {**beside, f"{key}_error": Figure(heading, "raw top-1 error, mean of 75 conditions", share=True), **ece}


def normalized_figures() -> dict[str, Figure]:
    """The errors over AlexNet's, of 1000-class ImageNet."""
    unit = "% of AlexNet's"
    by_kind = {f"ce_{kind}": Figure(name, "corruption error", unit) for kind, name in _KINDS.items()}
    mean = {"mce": Figure("mCE", "mean corruption error", unit)}
    relative = Figure("Rel. mCE", "relative mean corruption error", unit, of=("clean", "imagenet-c"), secondary=True)
    return {**by_kind, **mean, "relative_mce": relative}


def totals(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The raw errors of a complete suite; empty for a partial suite."""
    if not card.results(suite) or card.missing(suite):
        return {}
    errors, key = _errors(card, suite), suite.replace("-", "_")
    raw = {f"{key}_{kind}": error for kind, error in metrics.category_errors(errors).items()}
    calibration = [row.get("ece") for row in card.results(suite).values()]
    known = [value for value in calibration if value is not None]
    ece = {f"{key}_ece": sum(known) / len(known)} if len(known) == len(calibration) else {}
    return {f"{key}_error": metrics.mean_error(errors), **raw, **ece}


def normalized_totals(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The raw errors, and for 1000-class ImageNet the errors over AlexNet's."""
    figures = totals(card, suite, found)
    if not figures or not card.is_imagenet:
        return figures
    errors = _errors(card, suite)
    figures["mce"] = metrics.mean_corruption_error(errors)
    if "clean_error" in found:
        figures["relative_mce"] = metrics.relative_mean_corruption_error(errors, found["clean_error"] / 100)
    return figures | {f"ce_{kind}": error for kind, error in metrics.category_corruption_errors(errors).items()}


def _errors(card: ScorecardData, suite: str) -> dict[str, list[float]]:
    table = card.severity_errors(suite)
    return {name: [table[name][s] / 100 for s in SEVERITIES] for name in metrics.missing_corruptions(())}


def altered(card: ScorecardData, suite: str, *, constants: str, imagenet: bool) -> list[str]:
    """How a suite departs from the published set.

    Args:
        card: the whole card.
        suite: its name.
        constants: those of the published set.
        imagenet: the suite has a JPEG step, and is compared with AlexNet's errors where the data is ImageNet.
    """
    settings, messages = card.suite_settings(suite), []
    if imagenet and settings.get("fidelity") == "memory":
        messages.append("fidelity memory, without the JPEG step of the distributed files, so noise is harder")
    if side := settings.get("resized_from"):
        messages.append(f"files of {side} px, resized to {card.data['size']} px")
    if imagenet and card.is_imagenet and card.data["size"] != 224:
        messages.append(f"{card.data['size']} px, while AlexNet's errors are for 224 px")
    if scale := settings.get("frost_scale"):
        size = settings.get("resized_from", card.data["size"])
        messages.append(
            f"constants {settings['constants']} were made for {round(size / scale)} px, the nearest published size to "
            f"{size} px, and frost is scaled by {scale:.3g}"
        )
    elif (card.is_imagenet or not imagenet) and settings.get("constants", constants) != constants:
        messages.append(f"constants {settings['constants']} instead of {constants}")
    return messages


def notes(card: ScorecardData, suite: str) -> list[str]:
    """Missing conditions, and conditions whose files differ from the data."""
    messages = []
    if card.results(suite) and (lacking := card.missing(suite)):
        messages.append(f"{suite} is partial, so it has no total; missing: {', '.join(lacking)}.")
    return messages + other_files(card, suite)


def other_files(card: ScorecardData, suite: str) -> list[str]:
    """The conditions whose files differ from the data's images."""
    messages = []
    for condition, row in card.results(suite).items():
        if row["n"] != card.data["n"] or row.get("differs"):
            how = f" ({row['differs']})" if row.get("differs") else ""
            found = f"its files hold {row['n']:,} of {card.data['n']:,} images"
            messages.append(f"{suite} {condition}: {found}{how}.")
    return messages


def tables(card: ScorecardData, suite: str) -> list[Table]:
    """The error by corruption and severity."""
    errors, settings = card.severity_errors(suite), card.suite_settings(suite)
    if not errors:
        return []
    how = ", ".join(str(settings[key]) for key in ("from", "fidelity", "constants") if settings.get(key))
    rows: list[list[str | float | None]] = []
    for name, by_severity in errors.items():
        mean = sum(by_severity.values()) / len(by_severity) if len(by_severity) == len(SEVERITIES) else None
        rows.append([name, *(by_severity.get(s) for s in SEVERITIES), mean])
    headings = ["corruption", *map(str, SEVERITIES), "mean"]
    return [Table(f"{suite}: top-1 error in percent ({how})", headings, rows, digits=1)]
