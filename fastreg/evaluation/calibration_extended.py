"""Calibration beyond the paper: other calibration errors, temperature scaling, and selective classification.

The images are divided into two halves, drawn by Philox from the seed. Temperature and vector scaling are fitted on one,
and the scaled figures are of the other: no image that is scored takes part in a fit. All figures are of the unchanged
images, in a pass of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg import metrics
from fastreg.errors import InputError
from fastreg.evaluation import conditions
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, Figure, Row, Suite, SuitePlan, Table
from fastreg.kernels import philox
from fastreg.metrics.tally import rank_of_label

NAME = "calibration-extended"
HALVES = {"halves": "drawn by Philox", "fitted_on": "half 0", "scored_on": "half 1"}
FIGURES = {
    "adaptive_ece": Figure("ACE", "adaptive calibration error, 20 bins of equal count", secondary=True),
    "classwise_ece": Figure("Class-wise ECE", "class-wise calibration error, 20 bins", secondary=True),
    "maximum_ce": Figure("Max. CE", "maximum calibration error, 20 bins", secondary=True),
    "rms_ce": Figure("RMS CE", "root mean square calibration error, 20 bins", secondary=True),
    "aurc": Figure("AURC", "area under the risk-coverage curve", secondary=True),
    "temperature": Figure("T", "temperature fitted on half of the images", "dimensionless", best="", secondary=True),
    "ece_scaled": Figure("ECE / T", "expected calibration error of the other half at T", secondary=True),
    "nll_scaled": Figure("NLL / T", "negative log-likelihood of the other half at T", "nats", secondary=True),
    "ece_vector": Figure("ECE, vector", "expected calibration error of the other half, vector scaled", secondary=True),
    "nll_vector": Figure(
        "NLL, vector", "negative log-likelihood of the other half, vector scaled", "nats", secondary=True
    ),
}


def build(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """One pass over the unchanged images that keeps their logits."""
    # its own reference: `compare` needs no other condition
    figures = partial(_figures, seed=config.seed)
    own = Condition(conditions.clean, reference=True, collect=_logits_and_label, compare=figures)
    return SuitePlan(dict(HALVES), {NAME: own})


def _logits_and_label(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.cat((logits, labels[:, None].to(logits.dtype)), 1)


def first_half(n: int, seed: int) -> Tensor:
    """bool [n]: the images on which scaling is fitted: of n // 2, those with the smallest draws."""
    draws = philox.field(philox.uniform, seed, np.arange(n), 1, 0, "calibration_half")[:, 0]
    half = torch.zeros(n, dtype=torch.bool)
    half[torch.from_numpy(draws.argsort(kind="stable")[: n // 2])] = True
    return half


def _figures(reference: Tensor, values: Tensor, row: Row, *, seed: int) -> Row:
    """The row: figures of all images with a softmax; None where a figure is undefined, with the reason."""
    half = first_half(len(values), seed)
    has_softmax = ~values[:, :-1].log_softmax(1).isnan().any(1)
    logits, labels, half = values[has_softmax, :-1], values[has_softmax, -1].long(), half[has_softmax]
    kept = {key: row[key] for key in ("n", "nonfinite", "impossible")}
    if not len(logits):
        return {**kept, **dict.fromkeys(FIGURES)}
    p = logits.softmax(1)
    confidence, correct = p.amax(1), rank_of_label(logits, labels) < 1
    found: dict[str, Any] = {
        "adaptive_ece": metrics.adaptive_calibration_error(confidence, correct),
        "classwise_ece": metrics.classwise_calibration_error(p, labels),
        "maximum_ce": metrics.maximum_calibration_error(confidence, correct),
        "rms_ce": metrics.rms_calibration_error(confidence, correct),
        "aurc": metrics.aurc(confidence, correct),
        "fitted_on": int(half.sum()),
        "scored_on": int((~half).sum()),
    }
    return {**kept, **found, **_scaled(logits, labels, half)}


def _scaled(logits: Tensor, labels: Tensor, half: Tensor) -> Row:
    """The scalings of one half, and the figures of the other as trained and after each; why a scaling is missing."""
    found: Row = {key: None for name in ("unscaled", *SCALINGS) for key in _keys(name)}
    found["temperature"] = None
    if not half.any() or half.all():
        return {**found, **{f"no_{name}": "there are fewer than two images" for name in SCALINGS.values()}}
    found |= _scored("unscaled", logits[~half].double(), labels[~half])
    for name, what in SCALINGS.items():
        try:
            scaling = FITS[name](logits[half], labels[half])
        except InputError as error:
            found[f"no_{what}"] = str(error).rstrip(".")
            continue
        scaled = logits[~half].double() * scaling[0] + scaling[1]
        found |= _scored(name, scaled, labels[~half])
        if name == "scaled":
            found["temperature"] = 1 / float(scaling[0])
    return found


def _temperature(logits: Tensor, labels: Tensor) -> tuple[Any, Any]:
    return 1 / metrics.fit_temperature(logits, labels), 0.0


SCALINGS = {"scaled": "temperature", "vector": "vector_scaling"}
FITS: dict[str, Callable[[Tensor, Tensor], tuple[Any, Any]]] = {
    "scaled": _temperature,
    "vector": metrics.fit_vector_scaling,
}


def _keys(name: str) -> tuple[str, str, str]:
    return f"ece_{name}", f"nll_{name}", f"error_{name}"


def _scored(name: str, logits: Tensor, labels: Tensor) -> Row:
    log_p = logits.log_softmax(1)
    correct = rank_of_label(logits, labels) < 1
    own = -log_p.gather(1, labels[:, None])
    ece = metrics.expected_calibration_error(log_p.exp().amax(1).clamp(max=1), correct)
    nll = float(own.mean()) if bool(own.isfinite().all()) else None
    return dict(zip(_keys(name), (ece, nll, 100.0 * float((~correct).double().mean()))))


def summary(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The figures that are defined."""
    row = card.results(suite).get(NAME, {})
    return {key: row[key] for key in FIGURES if row.get(key) is not None}


def notes(card: ScorecardData, suite: str) -> list[str]:
    """The halves, or the reasons why a scaling is missing."""
    row = card.results(suite).get(NAME)
    if row is None:
        return []
    messages = []
    if any(row.get(f"ece_{name}") is not None for name in SCALINGS):
        messages.append(
            f"{suite}: scaling is fitted on {row['fitted_on']:,} images, a half drawn by Philox from seed "
            f"{card.settings['seed']}, and scored on the other {row['scored_on']:,}."
        )
    for what in SCALINGS.values():
        if why := row.get(f"no_{what}"):
            messages.append(f"{suite}: there is no {what.replace('_', ' ')}: {why}.")
    return messages


def tables(card: ScorecardData, suite: str) -> list[Table]:
    """The scored half as trained, and after each scaling."""
    row = card.results(suite).get(NAME, {})
    known = [name for name in SCALINGS if row.get(f"ece_{name}") is not None]
    if not known:
        return []
    words = {"unscaled": "as trained", "scaled": "temperature", "vector": "scale and bias per class"}
    values = [
        [words[name], row["temperature"] if name == "scaled" else None, *map(row.get, _keys(name))]
        for name in ("unscaled", *known)
    ]
    return [Table(f"{suite}: scaling", ["scored half", "T", "ECE, %", "NLL, nats", "top-1 error, %"], values)]


SUITE = Suite(
    NAME,
    "adaptive, class-wise, maximum and RMS calibration error, temperature and vector scaling, risk by coverage",
    build,
    figures=FIGURES,
    summary=summary,
    notes=notes,
    tables=tables,
)
