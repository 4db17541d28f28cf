"""Calibration beyond the paper: other calibration errors, temperature scaling, and selective classification.

The temperature is fitted on the images of even index, and the scaled figures are of those of odd index: no image that
is scored takes part in the fit. All figures are of the unchanged images, in a pass of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastreg import metrics
from fastreg.errors import InputError
from fastreg.evaluation import conditions
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, Figure, Row, Suite, SuitePlan, Table
from fastreg.metrics.tally import rank_of_label

NAME = "calibration-extended"
HALVES = {"fitted_on": "even indices", "scored_on": "odd indices"}
FIGURES = {
    "adaptive_ece": Figure("ACE", "adaptive calibration error, 20 bins of equal count", secondary=True),
    "classwise_ece": Figure("Class-wise ECE", "class-wise calibration error, 20 bins", secondary=True),
    "maximum_ce": Figure("Max. CE", "maximum calibration error, 20 bins", secondary=True),
    "aurc": Figure("AURC", "area under the risk-coverage curve", secondary=True),
    "temperature": Figure("T", "temperature fitted on the even half", "dimensionless", best="", secondary=True),
    "ece_scaled": Figure("ECE / T", "expected calibration error of the odd half at T", secondary=True),
    "nll_scaled": Figure("NLL / T", "negative log-likelihood of the odd half at T", "nats", secondary=True),
}


def build(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """One pass over the unchanged images that keeps their logits."""
    # its own reference: `compare` needs no other condition
    own = Condition(conditions.clean, reference=True, collect=_logits_and_label, compare=_figures)
    return SuitePlan(dict(HALVES), {NAME: own})


def _logits_and_label(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.cat((logits, labels[:, None].to(logits.dtype)), 1)


def _figures(reference: Tensor, values: Tensor, row: Row) -> Row:
    """The row: figures of all images with a softmax; None where a figure is undefined, with the reason."""
    even = torch.arange(len(values)) % 2 == 0
    has_softmax = ~values[:, :-1].log_softmax(1).isnan().any(1)
    logits, labels, even = values[has_softmax, :-1], values[has_softmax, -1].long(), even[has_softmax]
    kept = {key: row[key] for key in ("n", "nonfinite", "impossible")}
    if not len(logits):
        return {**kept, **dict.fromkeys(FIGURES)}
    p = logits.softmax(1)
    confidence, correct = p.amax(1), rank_of_label(logits, labels) < 1
    found: dict[str, Any] = {
        "adaptive_ece": metrics.adaptive_calibration_error(confidence, correct),
        "classwise_ece": metrics.classwise_calibration_error(p, labels),
        "maximum_ce": metrics.maximum_calibration_error(confidence, correct),
        "aurc": metrics.aurc(confidence, correct),
    }
    return {**kept, **found, **_scaled(logits, labels, even)}


def _scaled(logits: Tensor, labels: Tensor, even: Tensor) -> Row:
    """The temperature of one half, and the figures of the other before and after scaling."""
    none = dict.fromkeys(("temperature", "ece_unscaled", "ece_scaled", "nll_unscaled", "nll_scaled"))
    if not even.any() or even.all():
        return {**none, "no_temperature": "there are fewer than two images"}
    try:
        temperature = metrics.fit_temperature(logits[even], labels[even])
    except InputError as error:
        return {**none, "no_temperature": str(error).rstrip(".")}
    found: Row = {"temperature": temperature}
    for word, t in (("unscaled", 1.0), ("scaled", temperature)):
        log_p = (logits[~even].double() / t).log_softmax(1)
        correct = rank_of_label(logits[~even], labels[~even]) < 1
        found[f"ece_{word}"] = metrics.expected_calibration_error(log_p.exp().amax(1), correct)
        own = -log_p.gather(1, labels[~even, None])
        found[f"nll_{word}"] = float(own.mean()) if bool(own.isfinite().all()) else None
    return found


def summary(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The figures that are defined."""
    row = card.results(suite).get(NAME, {})
    return {key: row[key] for key in FIGURES if row.get(key) is not None}


def notes(card: ScorecardData, suite: str) -> list[str]:
    """The halves of the temperature, or the reason why there is none."""
    row = card.results(suite).get(NAME)
    if row is None:
        return []
    if why := row.get("no_temperature"):
        return [f"{suite}: there is no temperature: {why}."]
    return [f"{suite}: the temperature is fitted on the images of even index, and scored on those of odd index."]


def tables(card: ScorecardData, suite: str) -> list[Table]:
    """The odd half before and after scaling."""
    row = card.results(suite).get(NAME, {})
    if row.get("temperature") is None:
        return []
    headings = ["odd half", "T", "ECE, %", "NLL, nats"]
    rows = [["as trained", 1.0, row["ece_unscaled"], row["nll_unscaled"]]]
    rows.append(["scaled", row["temperature"], row["ece_scaled"], row["nll_scaled"]])
    return [Table(f"{suite}: temperature scaling", headings, rows)]


SUITE = Suite(
    NAME,
    "adaptive, class-wise and maximum calibration error, temperature scaling, risk by coverage",
    build,
    figures=FIGURES,
    summary=summary,
    notes=notes,
    tables=tables,
)
