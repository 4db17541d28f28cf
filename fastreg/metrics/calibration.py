"""Calibration of a classifier's probabilities, in percent.

Bins of equal width are (low, high]: a confidence of exactly 1 is in the last bin, one of 0 in the first. Bin edges are
numpy's linspace(0, 1, bins + 1), rounded to the precision of the confidences. The accuracy of a bin is the share of
its hits, its confidence the mean of its confidences.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.metrics.inputs import bin_count, classes, confidences
from fastreg.metrics.inputs import probabilities as check_probabilities

BINS = 20  # of Chun et al. 2020
ROWS = 4096  # samples at a time where every class of every sample has a bin


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


def maximum_calibration_error(confidence: Any, correct: Any, bins: int = BINS) -> float:
    """MCE: max over bins b of |accuracy_b - confidence_b|, empty bins left out.

    Args:
        confidence: Largest softmax probability of each sample, float [N] in [0, 1].
        correct: Hits [N], 1 (right) or 0 (wrong).
        bins: Number of bins of equal width, 1 or more.

    Returns:
        Percent.

    Raises:
        InputError: A value is outside [0, 1], the lengths differ, or ``bins`` is less than 1.

    Source:
        Naeini et al., Obtaining well calibrated probabilities using Bayesian binning (AAAI 2015); Guo et al., On
        calibration of modern neural networks (ICML 2017), equation 5.
    """
    p, hit = confidences(confidence, correct)
    count, mean, accuracy = sum_bins(p, hit, bin_count(bins))
    return 100.0 * float(((accuracy - mean).abs() / count.clamp(min=1)).max())


def rms_calibration_error(confidence: Any, correct: Any, bins: int = BINS) -> float:
    """Root mean square (L2) calibration error: sqrt(sum over bins b of n_b / N (accuracy_b - confidence_b)^2).

    Args:
        confidence: Largest softmax probability of each sample, float [N] in [0, 1].
        correct: Hits [N], 1 (right) or 0 (wrong).
        bins: Number of bins of equal width, 1 or more.

    Returns:
        Percent.

    Raises:
        InputError: A value is outside [0, 1], the lengths differ, or ``bins`` is less than 1.

    Source:
        Kumar et al., Verified uncertainty calibration (NeurIPS 2019), section 2, without its debiasing.
    """
    p, hit = confidences(confidence, correct)
    count, mean, accuracy = sum_bins(p, hit, bin_count(bins))
    return 100.0 * float(((accuracy - mean).square() / count.clamp(min=1)).sum() / count.sum()) ** 0.5


def adaptive_calibration_error(confidence: Any, correct: Any, bins: int = BINS) -> float:
    """Adaptive ECE: sum over bins b of n_b / N |accuracy_b - confidence_b|, bins of equal count.

    Samples are sorted by ascending confidence; equal confidences keep their order. The bins are consecutive groups as
    of ``numpy.array_split``: with N = q bins + r, the first r have q + 1 samples and the others q.

    Args:
        confidence: Largest softmax probability of each sample, float [N] in [0, 1].
        correct: Hits [N], 1 (right) or 0 (wrong).
        bins: Number of bins of equal count, 1 or more. Bins beyond N are empty and add nothing.

    Returns:
        Percent.

    Raises:
        InputError: A value is outside [0, 1], the lengths differ, or ``bins`` is less than 1.

    Source:
        Nguyen and O'Connor, Posterior calibration and exploratory analysis for natural language processing models
        (EMNLP 2015), for the bins; Nixon et al., Measuring calibration in deep learning (CVPR workshops 2019), for
        absolute differences. Their weight 1 / bins is n_b / N where ``bins`` divides N.
    """
    p, hit = confidences(confidence, correct)
    bins = bin_count(bins)
    p, order = p.sort(stable=True)
    each, more = divmod(len(p), bins)
    position = torch.arange(len(p), device=p.device)
    longer = more * (each + 1)  # samples in bins of each + 1
    index = torch.where(position < longer, position // (each + 1), more + (position - longer) // max(each, 1))
    return ece_of_bins(_sums(p, hit[order], index, bins))


def classwise_calibration_error(probabilities: Any, labels: Any, bins: int = BINS) -> float:
    """Classwise ECE: mean over classes k of the sum over bins b of n_bk / N |frequency_bk - probability_bk|.

    For each class all N samples are binned by their probability of that class. frequency_bk is the share of label k
    in the bin, probability_bk the mean probability of k. Classes without a label count as all others.

    Args:
        probabilities: Softmax, float [N, K] in [0, 1], whose rows sum to 1.
        labels: Class indices, integers [N].
        bins: Number of bins of equal width, 1 or more.

    Returns:
        Percent.

    Raises:
        InputError: ``probabilities`` are not probabilities, a label is not one of their classes, or ``bins`` is less
            than 1.

    Source:
        Kull et al., Beyond temperature scaling (NeurIPS 2019), section 2; the static calibration error of Nixon et
        al., Measuring calibration in deep learning (CVPR workshops 2019).
    """
    p = check_probabilities(probabilities)
    y = classes(labels, p, "probabilities")
    bins, count = bin_count(bins), p.shape[1]
    first = torch.arange(count, device=p.device) * bins  # of each class in one row of all bins
    gaps = torch.zeros(count * bins, dtype=torch.float64, device=p.device)
    for rows, own in zip(p.split(ROWS), y.split(ROWS)):
        index = bin_of(rows, bins) + first
        gaps.index_add_(0, index.flatten(), rows.double().flatten())
        label = index.gather(1, own[:, None]).squeeze(1)
        gaps.index_add_(0, label, torch.full_like(label, -1, dtype=torch.float64))
    return 100.0 * float(gaps.abs().sum()) / (count * len(p))
