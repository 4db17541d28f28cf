"""Calibration of a classifier's probabilities, in percent.

Bins of equal width are (low, high]: a confidence of exactly 1 is in the last bin, one of 0 in the first. Bin edges are
numpy's linspace(0, 1, bins + 1), rounded to the precision of the confidences.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.metrics.inputs import bin_count, confidences

BINS = 20  # of Chun et al. 2020


def bin_of(confidence: Tensor, bins: int = BINS) -> Tensor:
    """int64, shape of ``confidence``: the bin of each. Does not synchronize with the device."""
    edges = torch.arange(1, bins, dtype=torch.float64, device=confidence.device) * (1 / bins)
    return torch.bucketize(confidence, edges.to(confidence.dtype))


def sum_bins(p: Tensor, hit: Tensor, bins: int) -> Tensor:
    """float64 [3, bins]: count, sum of confidences, sum of hits."""
    return _sums(p, hit, bin_of(p, bins), bins)


def _sums(p: Tensor, hit: Tensor, index: Tensor, bins: int) -> Tensor:
    rows = torch.stack((torch.ones_like(hit), p.double(), hit))
    return torch.zeros(3, bins, dtype=torch.float64, device=p.device).index_add_(1, index, rows)


def summarise_bins(count: list[float], confidence: list[float], correct: list[float]) -> dict[str, list]:
    """The columns of :func:`reliability_bins` from the three sums per bin."""
    bins = len(count)
    return {
        "low": [b / bins for b in range(bins)],
        "high": [(b + 1) / bins for b in range(bins)],
        "count": [int(n) for n in count],
        "confidence": [c / n if n else None for c, n in zip(confidence, count)],
        "accuracy": [h / n if n else None for h, n in zip(correct, count)],
    }


def reliability_bins(confidence: Any, correct: Any, bins: int = BINS) -> dict[str, list[float]]:
    """The columns of a reliability diagram.

    Args:
        confidence: Largest softmax probability of each sample, float [N] in [0, 1].
        correct: Hits [N], 1 (right) or 0 (wrong).
        bins: Number of bins of equal width, 1 or more.

    Returns:
        Lists by name, one value per bin: ``low`` and ``high`` (edges), ``count``, ``confidence`` and ``accuracy``
        (means as shares in [0, 1]; None in an empty bin).

    Raises:
        InputError: A value is outside [0, 1], the lengths differ, or ``bins`` is less than 1.

    Source:
        Guo et al., On calibration of modern neural networks (ICML 2017), section 2.
    """
    p, hit = confidences(confidence, correct)
    return summarise_bins(*(column.tolist() for column in sum_bins(p, hit, bin_count(bins))))


def expected_calibration_error(confidence: Any, correct: Any, bins: int = BINS) -> float:
    """ECE: sum over bins b of n_b / N |accuracy_b - confidence_b|.

    Args:
        confidence: Largest softmax probability of each sample, float [N] in [0, 1].
        correct: Hits [N], 1 (right) or 0 (wrong).
        bins: Number of bins of equal width, 1 or more.

    Returns:
        Percent.

    Raises:
        InputError: A value is outside [0, 1], the lengths differ, or ``bins`` is less than 1.

    Source:
        Guo et al., On calibration of modern neural networks (ICML 2017), equation 3.
    """
    p, hit = confidences(confidence, correct)
    return ece_of_bins(sum_bins(p, hit, bin_count(bins)))


def ece_of_bins(sums: Tensor) -> float:
    """ECE in percent from the three sums per bin."""
    count, confidence, correct = sums
    return 100.0 * float((correct - confidence).abs().sum() / count.sum().clamp(min=1))
