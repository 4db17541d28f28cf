"""The plans of the suites of one condition, and the figures of the clean pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastreg.evaluation import conditions
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, SuitePlan


def clean(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """The unchanged images."""
    return SuitePlan({}, {"clean": Condition(conditions.clean, reference=True, bins=True)})


def clean_figures(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """Errors, and the calibration of the same pass; figures that are None are left out."""
    row: dict[str, Any] = card.results(suite).get("clean", {})
    figures = {"clean_error": row["error"], "top5_error": row["top5_error"]} if row else {}
    return figures | {key: row[key] for key in ("nll", "ece", "brier", "confidence") if row.get(key) is not None}


def occlusion(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """A black square at the center."""
    size, side = eval_data.size, eval_data.size // 2
    corner = (size - side) // 2
    settings = {"side": side} | ({"corner": corner} if corner != size // 4 else {})  # cards of older versions had S/4
    return SuitePlan(settings, {"occlusion": Condition(conditions.occlusion)})


def occlusion_notes(card: ScorecardData, suite: str) -> list[str]:
    """On sample data several classes are dark, so that a black square is evidence for them."""
    if not card.sample or not card.results(suite):
        return []
    why = "several of its classes are dark images, so a black square is evidence for them"
    return [f"{suite} cannot be judged on sample data: {why}."]
