"""Errors, likelihoods and calibration of a classifier's outputs. Inputs in [0, 1], results in percent.

Sources: ECE as Guo et al. 2017 (1706.04599, section 2) with bins (lo, hi], so that a confidence of exactly 1 counts
once, in the last bin; Brier score summed over classes as Brier 1950.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.errors import InputError
from fastreg.metrics._arrays import bin_count, classes, confidences, matrix, probabilities, shares, tensor

BINS = 20  # the paper's number of bins
NO_RANK = 1 << 30  # of a label among logits that have no order: never among the first five, however few classes


def rank_of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the true one, int64 [B]; a tie goes to the lower class index, on every device.

    ``logits`` float [B, K], ``labels`` int64 [B]. 0 is a top-1 hit, below 5 a top-5 hit; a row with a NaN is no hit.
    """
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(1)
    return torch.where(logits.isnan().any(1), NO_RANK, rank)  # no comparison with a NaN is true


def top1_error(outputs: Any, labels: Any = None) -> float:
    """Percent of samples that the first guess misses.

    ``outputs`` is the logits or probabilities [N, K] or the predicted classes [N], beside ``labels`` [N]; or, alone,
    the hits [N] in [0, 1]. A row of outputs with a NaN is a miss, whatever its label.
    """
    return _top_error(outputs, labels, 1)


def top5_error(outputs: Any, labels: Any) -> float:
    """Percent of samples whose class is not among the five largest of ``outputs`` [N, K]; a NaN makes a row a miss."""
    return _top_error(outputs, labels, 5)


def _top_error(outputs: Any, labels: Any, k: int) -> float:
    if labels is None:
        hits = shares(outputs, "outputs", "without labels they are the hits [N]; logits need labels beside them")
        return 100.0 * float((1 - hits.double()).mean())
    x = matrix(outputs, "outputs") if k > 1 else tensor(outputs, "outputs")
    if x.ndim > 2:
        raise InputError(f"outputs is {list(x.shape)}: give logits [N, K], or predicted classes [N]")
    x = x if x.ndim else x[None]
    y = classes(labels, x)
    hit = rank_of_label(x, y) < k if x.ndim == 2 else x == y
    return 100.0 * float((~hit).double().mean())


def average_confidence(confidence: Any) -> float:
    """Mean top-1 probability [N] in percent (the paper's Figure 1)."""
    return 100.0 * float(shares(confidence, "confidence", "give the largest softmax probability").double().mean())


def negative_log_likelihood(probabilities: Any, labels: Any) -> float:
    """Mean of -log p(label) in nats (not percent). ``probabilities`` [N, K]."""
    return float(-_of_label(probabilities, labels)[1].log().mean())


def brier_score(probabilities: Any, labels: Any) -> float:
    """Mean squared distance of probabilities [N, K] to the one-hot label, summed over classes, in percent (0-200)."""
    p, own = _of_label(probabilities, labels)
    return 100.0 * float((p.square().sum(1) - 2 * own + 1).mean())


def _of_label(values: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Probabilities float64 [N, K], and those of the labels [N]."""
    p = probabilities(values)
    return p, p.gather(1, classes(labels, p)[:, None]).squeeze(1)


def bin_of(confidence: Tensor, bins: int = BINS) -> Tensor:
    """Bin index int64 of each confidence: bin b holds (b/bins, (b+1)/bins], and 0 falls into the first.

    The edges are numpy's linspace(0, 1, bins + 1), rounded to the confidences' own precision. Made on the device: no
    host synchronisation.
    """
    edges = torch.arange(1, bins, dtype=torch.float64, device=confidence.device) * (1 / bins)
    return torch.bucketize(confidence, edges.to(confidence.dtype))


def reliability_bins(confidence: Any, correct: Any, bins: int = BINS) -> dict[str, list[float]]:
    """What a reliability diagram draws: per bin its edges, count, mean confidence and accuracy (None when empty)."""
    p, hit = confidences(confidence, correct)
    return summarise_bins(*(column.tolist() for column in sum_bins(p, hit, bin_count(bins))))


def sum_bins(p: Tensor, hit: Tensor, bins: int) -> Tensor:
    """float64 [3, bins]: count, sum of confidence, sum of hits."""
    rows = torch.stack((torch.ones_like(hit), p.double(), hit))
    return torch.zeros(3, bins, dtype=torch.float64, device=p.device).index_add_(1, bin_of(p, bins), rows)


def summarise_bins(count: list[float], confidence: list[float], correct: list[float]) -> dict[str, list]:
    """Readable columns out of the three sums per bin."""
    bins = len(count)
    return {
        "low": [b / bins for b in range(bins)],
        "high": [(b + 1) / bins for b in range(bins)],
        "count": [int(n) for n in count],
        "confidence": [c / n if n else None for c, n in zip(confidence, count)],
        "accuracy": [h / n if n else None for h, n in zip(correct, count)],
    }


def expected_calibration_error(confidence: Any, correct: Any, bins: int = BINS) -> float:
    """ECE in percent: sum over bins of n_b/N |accuracy_b - confidence_b|, bins (lo, hi].

    ``confidence`` float [N] is the largest softmax probability in [0, 1], ``correct`` [N] the hits. Raises InputError
    for values outside [0, 1], vectors of two lengths and less than one bin.
    """
    p, hit = confidences(confidence, correct)
    return ece_of_bins(sum_bins(p, hit, bin_count(bins)))


def ece_of_bins(sums: Tensor) -> float:
    """ECE in percent from the three sums per bin."""
    count, confidence, correct = sums
    return 100.0 * float((correct - confidence).abs().sum() / count.sum().clamp(min=1))
