"""ImageNet-C-bar: ten corruptions that look unlike those of ImageNet-C, generated or read from the published files.

The total is the mean top-1 error of the 50 conditions, as in the source: it is not normalized by another model's.

Source: Mintun, Kirillov and Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption
Robustness" (NeurIPS 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastreg.evaluation import conditions, corruption_suite, published_sets
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, Figure, NoCorruption, Suite, SuitePlan
from fastreg.kernels import C_BAR_CORRUPTIONS

_KEY = "imagenet_c_bar_error"
_MADE_FOR = 224  # pixels


def build(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """The conditions of the corruptions asked for, or of all ten.

    Raises NoCorruption if none of the corruptions asked for is of ImageNet-C-bar, InputError for missing files.
    """
    pairs = conditions.corruption_conditions(config.corruptions, config.severities)
    if config.corruptions is None:
        severities = dict.fromkeys(severity for _, severity in pairs)
        pairs = [(name, severity) for name in C_BAR_CORRUPTIONS for severity in severities]
    pairs = [pair for pair in pairs if pair[0] in C_BAR_CORRUPTIONS]
    if not pairs:
        raise NoCorruption("ImageNet-C-bar", config.corruptions, C_BAR_CORRUPTIONS)
    if config.imagenet_c_bar_dir is not None:
        return published_sets.imagenet_c(Path(config.imagenet_c_bar_dir), eval_data, pairs, config.resize_official)
    jpeg = config.fidelity == "dataset"
    given: dict[str, Any] = {"seed": config.seed, "constants": "auto", "jpeg": jpeg, "textures": None}
    settings = {"from": "generated", "fidelity": config.fidelity, "jpeg": 85 if jpeg else None}
    return SuitePlan(
        settings,
        {f"{name}/{severity}": Condition(conditions.corruption(name, severity, **given)) for name, severity in pairs},
    )


def missing(card: ScorecardData, suite: str) -> list[str]:
    """The conditions that the total lacks, those of other images than the data's among them."""
    rows = card.results(suite)
    whole = {key for key, row in rows.items() if row["n"] == card.data["n"] and not row.get("differs")}
    wanted = [f"{name}/{severity}" for name in C_BAR_CORRUPTIONS for severity in conditions.SEVERITIES]
    return [key for key in wanted if key not in whole]


def total(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The mean error of a complete suite; empty for a partial suite."""
    errors = [row["error"] for row in card.results(suite).values()]
    return {_KEY: sum(errors) / len(errors)} if errors and not missing(card, suite) else {}


def altered(card: ScorecardData, suite: str) -> list[str]:
    """Departures from the published set."""
    settings = card.suite_settings(suite)
    messages = []
    if settings.get("fidelity") == "memory":
        messages.append("fidelity memory, without the JPEG step of the distributed files")
    if side := settings.get("resized_from"):
        messages.append(f"files of {side} px, resized to {card.data['size']} px")
    elif card.data["size"] != _MADE_FOR:
        messages.append(f"{card.data['size']} px, while the published set has {_MADE_FOR}")
    return messages


def notes(card: ScorecardData, suite: str) -> list[str]:
    """Missing conditions, and conditions whose files differ from the data."""
    lacking = missing(card, suite) if card.results(suite) else []
    messages = [f"{suite} is partial, so it has no total; {len(lacking)} conditions are missing."] if lacking else []
    return messages + corruption_suite.other_files(card, suite)


SUITE = Suite(
    "imagenet-c-bar",
    "10 corruptions unlike ImageNet-C's at 5 severities (Mintun et al. 2021)",
    build,
    figures={_KEY: Figure("C-bar", "raw top-1 error on ImageNet-C-bar, mean of 50 conditions", share=True)},
    summary=total,
    severities=True,
    altered=altered,
    notes=notes,
    tables=corruption_suite.tables,
)
