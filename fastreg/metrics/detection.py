"""Separation of in-distribution scores (high) from out-of-distribution scores (low), in percent.

Every metric is exact: samples with equal scores are on the same side of a threshold, and shares are quotients of
counts. The cost is one sort of each set of scores, and a search in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import unknown
from fastreg.metrics.inputs import scores


def detection_error(scores_in: Any, scores_out: Any) -> float:
    """Detection error: min over d of (share of in-scores < d + share of out-scores >= d) / 2. Chance is 50.

    Args:
        scores_in: Scores of in-distribution samples [N], any real numbers without NaN.
        scores_out: Scores of out-of-distribution samples [M].

    Returns:
        Percent.

    Raises:
        InputError: Scores are empty, have NaN, or are not one number per sample.

    Source:
        Liang et al., Enhancing the reliability of out-of-distribution image detection (ODIN, ICLR 2018). They scan
        thresholds; the minimum here is exact.
    """
    inside, outside = _pair(scores_in, scores_out)
    inside, outside = _sorted(inside), _sorted(outside)
    # Raising d to the next in-score loses no in-score, so the best d is an in-score or infinity (error 1/2). Of equal
    # in-scores the first has the right number below it; the others give larger errors.
    missed = torch.arange(len(inside), dtype=torch.float64, device=inside.device) / len(inside)
    kept = (len(outside) - torch.searchsorted(outside, inside)).double() / len(outside)
    return 100.0 * min(0.5, float((missed + kept).min()) / 2)


def auroc(scores_in: Any, scores_out: Any) -> float:
    """Area under the ROC curve: probability that an in-score exceeds an out-score; a tie counts one half.

    Args:
        scores_in: Scores of in-distribution samples [N], any real numbers without NaN.
        scores_out: Scores of out-of-distribution samples [M].

    Returns:
        Percent.

    Raises:
        InputError: Scores are empty, have NaN, or are not one number per sample.

    Source:
        Hendrycks and Gimpel, A baseline for detecting misclassified and out-of-distribution examples (ICLR 2017),
        section 2.
    """
    inside, outside = _pair(scores_in, scores_out)
    inside, outside = _sorted(inside), _sorted(outside)  # searches for sorted values hit the cache
    below = torch.searchsorted(inside, outside).sum() + torch.searchsorted(inside, outside, right=True).sum()
    return 100.0 - 50.0 * int(below) / (len(inside) * len(outside))


def fpr95(scores_in: Any, scores_out: Any) -> float:
    """FPR at 95 % recall: share of out-scores at or above the highest threshold that keeps 95 % of the in-scores.

    Args:
        scores_in: Scores of in-distribution samples [N], any real numbers without NaN.
        scores_out: Scores of out-of-distribution samples [M].

    Returns:
        Percent.

    Raises:
        InputError: Scores are empty, have NaN, or are not one number per sample.

    Source:
        Liang et al., Enhancing the reliability of out-of-distribution image detection (ODIN, ICLR 2018).
    """
    inside, outside = _pair(scores_in, scores_out)
    dropped = 5 * len(inside) // 100  # at most; scores equal to the threshold are kept
    return 100.0 * int((outside >= inside.kthvalue(dropped + 1).values).sum()) / len(outside)


def aupr(scores_in: Any, scores_out: Any, positive: str = "in") -> float:
    """Area under the precision-recall curve, as average precision.

    Args:
        scores_in: Scores of in-distribution samples [N], any real numbers without NaN.
        scores_out: Scores of out-of-distribution samples [M].
        positive: ``"in"`` or ``"out"``: the samples that are the positives.

    Returns:
        Percent.

    Raises:
        InputError: Scores are empty, have NaN, or are not one number per sample, or ``positive`` is
            another value.

    Source:
        Hendrycks and Gimpel, A baseline for detecting misclassified and out-of-distribution examples (ICLR 2017),
        section 2.
    """
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
    """Both as vectors of one dtype on one device."""
    inside = scores(scores_in, "scores_in")
    outside = scores(scores_out, "scores_out").to(inside.device)
    both = torch.promote_types(inside.dtype, outside.dtype)
    return inside.to(both), outside.to(both)


def _sorted(values: Tensor) -> Tensor:
    """Ascending. On the CPU numpy's sort takes a quarter of the time of torch's, which also makes the permutation."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy()))
    return values.sort().values
