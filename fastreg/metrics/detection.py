"""How well a score tells in-distribution samples (high) from out-of-distribution ones (low). Results in percent.

Ties are treated exactly everywhere: samples of one score fall on one side of a threshold together.
Sources: detection error as in ODIN (Liang et al. 2018, 1706.02690), at the best threshold, found exactly over the
sorted union of scores; AUROC, AUPR and FPR95 as Hendrycks & Gimpel 2017 (1610.02136).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.metrics._arrays import scores


def detection_error(scores_in: Any, scores_out: Any) -> float:
    """min over thresholds d of (share of in-scores < d + share of out-scores >= d) / 2: 50 is a useless detector.

    ``scores_in`` [N], ``scores_out`` [M], any real scores; raises InputError for empty or NaN scores.
    """
    missed, kept = _curve(scores_in, scores_out)
    return 100.0 * float(((missed + kept) / 2).min())


def auroc(scores_in: Any, scores_out: Any) -> float:
    """Area under the ROC curve: the chance that an in-sample scores above an out-sample, ties counting one half."""
    missed, kept = _curve(scores_in, scores_out)
    return 100.0 * float(torch.trapezoid(1 - missed.flip(0), kept.flip(0)))


def fpr95(scores_in: Any, scores_out: Any) -> float:
    """Share of out-samples kept at the highest threshold that keeps at least 95 % of the in-samples."""
    missed, kept = _curve(scores_in, scores_out)
    return 100.0 * float(kept[(1 - missed) >= 0.95 - 1e-12].min())


def aupr(scores_in: Any, scores_out: Any, positive: str = "in") -> float:
    """Average precision with the in-samples (or, with ``positive="out"``, the out-samples) as the positives."""
    inside, outside = scores(scores_in, "scores_in"), scores(scores_out, "scores_out")
    if positive == "out":
        inside, outside = -outside, -inside
    missed, kept = _curve(inside, outside)
    hits, alarms = (1 - missed.flip(0)) * len(inside), kept.flip(0) * len(outside)
    precision = hits[1:] / (hits[1:] + alarms[1:])
    return 100.0 * float((precision * hits.diff()).sum() / len(inside))


def _curve(scores_in: Any, scores_out: Any) -> tuple[Tensor, Tensor]:
    """For each threshold of the sorted union and then infinity: share of in-scores below it, out-scores not below."""
    inside, outside = scores(scores_in, "scores_in"), scores(scores_out, "scores_out").to(_device(scores_in))
    inside, outside = inside.sort().values, outside.sort().values
    end = torch.full((1,), torch.inf, dtype=torch.float64, device=inside.device)
    thresholds = torch.cat((inside, outside)).unique()
    below_in = torch.searchsorted(inside, thresholds).double() / len(inside)
    below_out = torch.searchsorted(outside, thresholds).double() / len(outside)
    return torch.cat((below_in, end.isinf().double())), torch.cat((1 - below_out, 1 - end.isinf().double()))


def _device(values: Any) -> torch.device:
    return values.device if isinstance(values, Tensor) else torch.device("cpu")
