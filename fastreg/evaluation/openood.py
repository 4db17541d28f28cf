"""OpenOOD 1.5's measures and its CSV files, which lie in ``ood/`` beside the card: one file per score.

Its definitions differ from ``fastreg.metrics`` in two points. ``FPR@95`` takes the out-of-distribution images as the
positives: the share of the data's images that are rejected where 95 % of the others are. ``AUPR`` is the trapezoidal
area under the precision-recall curve, not the average precision.

Source: Zhang et al., OpenOOD v1.5 (DMLR 2024); its ``evaluators/metrics.py`` and ``scripts/eval_ood_imagenet.py``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastreg.files import atomic_write
from fastreg.metrics import auroc, fpr95

COLUMNS = ("FPR@95", "AUROC", "AUPR_IN", "AUPR_OUT", "ACC")
FOLDER = "ood"


def measures(inside: Tensor, outside: Tensor) -> list[float]:
    """FPR@95, AUROC, AUPR_IN and AUPR_OUT in percent.

    Args:
        inside: scores of the data's images [N], without NaN; higher is more in-distribution.
        outside: scores of the set's images [M].
    """
    own, other = inside.double(), outside.double()
    return [fpr95(-other, -own), auroc(own, other), _area(own, other), _area(-other, -own)]


def _area(positive: Tensor, negative: Tensor) -> float:
    """The trapezoidal area under the precision-recall curve, in percent; its first point is recall 0, precision 1."""
    positive, negative = positive.sort().values, negative.sort().values
    thresholds = torch.cat((positive, negative)).unique().flip(0)
    hits = (len(positive) - torch.searchsorted(positive, thresholds)).double()
    alarms = (len(negative) - torch.searchsorted(negative, thresholds)).double()
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    precision, recall = torch.cat((one, hits / (hits + alarms))), torch.cat((none, hits / len(positive)))
    return 100 * float(torch.trapezoid(precision, recall))


def write_csv(
    folder: Path,
    name: str,
    groups: Mapping[str, Sequence[str]],
    found: Mapping[str, Sequence[float]],
    accuracy: float | None,
) -> None:
    """Write ``ood/<name>.csv``: a row per set in OpenOOD's order, then one of the group's mean if it is complete.

    Args:
        folder: folder of the card.
        name: OpenOOD's name of the score.
        groups: names of the sets of "near" and "far", in order.
        found: measures by set, as of :func:`measures`.
        accuracy: of the data's images, in percent.
    """
    rows: list[list[Any]] = []
    for group, sets in groups.items():
        measured = [found[one] for one in sets if one in found]
        rows += [[one, *found[one]] for one in sets if one in found]
        if measured and len(measured) == len(sets):
            rows.append([f"{group}ood", *(sum(column) / len(sets) for column in zip(*measured))])
    if not rows:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *COLUMNS])
    last = "" if accuracy is None else f"{accuracy:.2f}"
    writer.writerows([row[0], *(f"{value:.2f}" for value in row[1:]), last] for row in rows)
    atomic_write(folder / FOLDER / f"{name}.csv", text.getvalue())
