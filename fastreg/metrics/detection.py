"""How well a score tells in-distribution samples (high) from out-of-distribution ones (low). Results in percent.

Each is one sort and one search in it. Ties are treated exactly everywhere: samples of one score fall on one side of a
threshold together; shares are quotients of counts.
Sources: detection error as in ODIN (Liang et al. 2018, 1706.02690), at the best threshold, found exactly; AUROC, AUPR
and FPR95 as Hendrycks & Gimpel 2017 (1610.02136).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import unknown
from fastreg.metrics._arrays import scores


def detection_error(scores_in: Any, scores_out: Any) -> float:
    """min over thresholds d of (share of in-scores < d + share of out-scores >= d) / 2: 50 is a useless detector.

    ``scores_in`` [N], ``scores_out`` [M], any real scores; raises InputError for empty or NaN scores.
    """
    inside, outside = _pair(scores_in, scores_out)
    inside, outside = _sorted(inside), _sorted(outside)
    # raising d to the next in-score loses no in-score, so only those and infinity (error 1/2) can be best; of equal
    # in-scores the first counts how many lie below, the later ones only come out worse
    missed = torch.arange(len(inside), dtype=torch.float64, device=inside.device) / len(inside)
    kept = (len(outside) - torch.searchsorted(outside, inside)).double() / len(outside)
    return 100.0 * min(0.5, float((missed + kept).min()) / 2)


def auroc(scores_in: Any, scores_out: Any) -> float:
    """Area under the ROC curve: the chance that an in-sample scores above an out-sample, ties counting one half."""
    inside, outside = _pair(scores_in, scores_out)
    inside, outside = _sorted(inside), _sorted(outside)  # a search for sorted values stays in the cache
    below = torch.searchsorted(inside, outside).sum() + torch.searchsorted(inside, outside, right=True).sum()
    return 100.0 - 50.0 * int(below) / (len(inside) * len(outside))


def fpr95(scores_in: Any, scores_out: Any) -> float:
    """Share of out-samples kept at the highest threshold that keeps at least 95 % of the in-samples."""
    inside, outside = _pair(scores_in, scores_out)
    dropped = 5 * len(inside) // 100  # at most; a tie at the threshold is kept whole
    return 100.0 * int((outside >= inside.kthvalue(dropped + 1).values).sum()) / len(outside)


def aupr(scores_in: Any, scores_out: Any, positive: str = "in") -> float:
    """Average precision with the in-samples (or, with ``positive="out"``, the out-samples) as the positives."""
    inside, outside = _pair(scores_in, scores_out)
    if positive not in ("in", "out"):
        raise unknown("positive", positive, ("in", "out"))
    if positive == "out":
        inside, outside = -outside, -inside
    inside, outside = _sorted(inside), _sorted(outside)
    hits = len(inside) - torch.searchsorted(inside, inside)  # positives at or above each positive's own score
    alarms = len(outside) - torch.searchsorted(outside, inside)
    return 100.0 * float((hits / (hits + alarms).double()).mean())


def _pair(scores_in: Any, scores_out: Any) -> tuple[Tensor, Tensor]:
    """Both as flat vectors of one type on one device."""
    inside = scores(scores_in, "scores_in")
    outside = scores(scores_out, "scores_out").to(inside.device)
    both = torch.promote_types(inside.dtype, outside.dtype)
    return inside.to(both), outside.to(both)


def _sorted(values: Tensor) -> Tensor:
    """Ascending. numpy sorts a quarter as long as torch on the CPU, which also keeps the permutation."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy()))
    return values.sort().values
