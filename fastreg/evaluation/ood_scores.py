"""Out-of-distribution detection by four scores of the logits, on the sets of the suite ``ood``.

The scores are those of ``scores.py``. Each set is compared with the data's own images by AUROC, the area under the
precision-recall curve with either side as the positives, the false positive rate at 95 % recall, and detection error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastreg.evaluation import conditions, ood, scores
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, Figure, Row, Suite, SuitePlan, Table
from fastreg.metrics import aupr, auroc, detection_error, fpr95

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "max_softmax": scores.max_softmax,
    "max_logit": scores.max_logit,
    "energy": scores.energy,
    "entropy": scores.entropy,
}
MEASURES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "auroc": auroc,
    "aupr_in": partial(aupr, positive="in"),
    "aupr_out": partial(aupr, positive="out"),
    "fpr95": fpr95,
    "detection_error": detection_error,
}
HEADINGS = ("AUROC", "AUPR in", "AUPR out", "FPR95", "detection error")  # of MEASURES
INSIDE = "data"  # the condition over the data's own images
FIGURES = {
    f"ood_{score}_{measure}": Figure(
        f"{heading} {score}", f"{about} of the score {score}, mean of the paper's sets", best=best, secondary=True
    )
    for measure, heading, about, best in (
        ("auroc", "AUROC", "area under the ROC curve", "highest"),
        ("fpr95", "FPR95", "false positive rate at 95 % recall", "lowest"),
    )
    for score in SCORES
}


def build(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """The sets of the suite ``ood``, and the data's own images. Raises InputError as that suite does."""
    plan = ood.build(eval_data, config)
    first = plan.settings["first"]
    compare = partial(_figures, first=first)
    inside = {INSIDE: Condition(conditions.clean, reference=True, collect=_scores)}
    sets = {name: c._replace(collect=_scores, compare=compare) for name, c in plan.conditions.items()}
    return SuitePlan({"scores": list(SCORES), "folder": plan.settings["folder"], "first": first}, inside | sets)


def _scores(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([score(logits) for score in SCORES.values()], 1)


def _figures(inside: Tensor, outside: Tensor, row: Row, *, first: int) -> Row:
    """The row of one set. Images without a softmax are left out and counted."""
    inside = inside[first : first + len(outside) if first else None]
    own, other = (values[~values.isnan().any(1)] for values in (inside, outside))
    counts = {"n": row["n"], "n_in": len(inside), "nonfinite": len(outside) - len(other)}
    lost = {"left_out_in": len(inside) - len(own)} if len(own) < len(inside) else {}
    found: dict[str, Any] = {}
    for i, name in enumerate(SCORES):
        a, b = own[:, i], other[:, i]
        found[name] = {key: measure(a, b) if len(a) and len(b) else None for key, measure in MEASURES.items()}
    return {**counts, **lost, "scores": found}


def _sets(card: ScorecardData, suite: str) -> dict[str, Row]:
    """The rows of the paper's sets that have figures."""
    rows = {name: card.results(suite).get(name) for name in ood.OOD_SETS}
    return {name: row for name, row in rows.items() if row and row["scores"]["energy"]["auroc"] is not None}


def summary(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The means over the paper's sets that were measured; a note names missing ones."""
    rows = list(_sets(card, suite).values())
    if not rows:
        return {}
    means = {}
    for key in FIGURES:
        score, _, measure = key.removeprefix("ood_").rpartition("_")
        means[key] = sum(row["scores"][score][measure] for row in rows) / len(rows)
    return means


def notes(card: ScorecardData, suite: str) -> list[str]:
    """The sets that the means lack, and images without scores."""
    sets, messages = _sets(card, suite), []
    missing = [name for name in ood.OOD_SETS if name not in sets]
    if sets and missing:
        messages.append(
            f"{suite}: the means are of {len(sets)} of the paper's {len(ood.OOD_SETS)} sets; missing: "
            f"{', '.join(missing)}."
        )
    for name, row in card.results(suite).items():
        if lost := row.get("left_out_in"):
            messages.append(f"{suite} {name}: {lost:,} of the data's images have no softmax and are left out.")
    return messages


def tables(card: ScorecardData, suite: str) -> list[Table]:
    """The figures of every set and score."""
    rows: list[list[Any]] = [
        [name, score, *(figures[key] for key in MEASURES)]
        for name, row in card.results(suite).items()
        for score, figures in row.get("scores", {}).items()
    ]
    return (
        [Table(f"{suite}: telling each set from the data, in percent", ["set", "score", *HEADINGS], rows)]
        if rows
        else []
    )


SUITE = Suite(
    "ood-scores",
    "AUROC, AUPR, FPR95 and detection error of four scores, on the sets of `ood`",
    build,
    figures=FIGURES,
    summary=summary,
    notes=notes,
    tables=tables,
)
