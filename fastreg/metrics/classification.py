"""Errors, likelihoods and confidence of a classifier's outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.errors import InputError
from fastreg.metrics.inputs import classes, matrix, probabilities, shares, tensor

NO_RANK = 1 << 30  # rank of a label in a row with NaN: never among the first five, however few classes


def rank_of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """int64 [B]: number of classes before the label; below 1 is a top-1 hit, below 5 a top-5 hit.

    ``logits`` float [B, K], ``labels`` int64 [B]. A tie goes to the lower class index on every device. A row with a NaN
    has ``NO_RANK``.
    """
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(1)
    return torch.where(logits.isnan().any(1), NO_RANK, rank)  # comparisons with NaN are false


def top1_error(outputs: Any, labels: Any = None) -> float:
    """Share of samples whose most likely class is not the label.

    Args:
        outputs: Logits or probabilities, float [N, K], or predicted classes [N]. Without ``labels``: hits [N] in
            [0, 1]. A tie goes to the lower class index. A row with a NaN is a miss.
        labels: Class indices, integers [N].

    Returns:
        Percent.

    Raises:
        InputError: A shape does not fit, hits are outside [0, 1], or a label is not a class of ``outputs``.
    """
    return _top_error(outputs, labels, 1)


def top5_error(outputs: Any, labels: Any) -> float:
    """Share of samples whose label is not among the five most likely classes.

    Args:
        outputs: Logits or probabilities, float [N, K]. A tie goes to the lower class index. A row with a NaN is a miss.
        labels: Class indices, integers [N].

    Returns:
        Percent.

    Raises:
        InputError: A shape does not fit, or a label is not a class of ``outputs``.
    """
    return _top_error(outputs, labels, 5)


def _top_error(outputs: Any, labels: Any, k: int) -> float:
    if labels is None:
        hits = shares(outputs, "outputs", "without `labels` give hits [N]; logits need `labels`")
        return 100.0 * float((1 - hits.double()).mean())
    x = matrix(outputs, "outputs") if k > 1 else tensor(outputs, "outputs")
    if x.ndim > 2:
        raise InputError(f"`outputs` has shape {list(x.shape)}: give logits [N, K], or predicted classes [N].")
    x = x if x.ndim else x[None]
    y = classes(labels, x)
    hit = rank_of_label(x, y) < k if x.ndim == 2 else x == y
    return 100.0 * float((~hit).double().mean())


def average_confidence(confidence: Any) -> float:
    """Mean of the largest softmax probability.

    Args:
        confidence: Largest softmax probability of each sample, float [N] in [0, 1].

    Returns:
        Percent.

    Raises:
        InputError: ``confidence`` is not [N] or has values outside [0, 1].

    Source:
        Chun et al. 2020 (arXiv 2003.03879), figure 1.
    """
    return 100.0 * float(shares(confidence, "confidence", "give the largest softmax probability").double().mean())


def negative_log_likelihood(probabilities: Any, labels: Any) -> float:
    """Mean of -log p(label).

    Args:
        probabilities: Softmax, float [N, K] in [0, 1], whose rows sum to 1.
        labels: Class indices, integers [N].

    Returns:
        Nats, not percent; infinite if a label has probability 0.

    Raises:
        InputError: ``probabilities`` are not probabilities, or a label is not one of their classes.
    """
    return float(-_of_label(probabilities, labels)[1].log().mean())


def brier_score(probabilities: Any, labels: Any) -> float:
    """Mean squared distance between the probabilities and the one-hot label, summed over classes.

    Args:
        probabilities: Softmax, float [N, K] in [0, 1], whose rows sum to 1.
        labels: Class indices, integers [N].

    Returns:
        Percent, from 0 to 200.

    Raises:
        InputError: ``probabilities`` are not probabilities, or a label is not one of their classes.

    Source:
        Brier, Verification of forecasts expressed in terms of probability (1950).
    """
    p, own = _of_label(probabilities, labels)
    return 100.0 * float((p.square().sum(1) - 2 * own + 1).mean())


def _of_label(values: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Probabilities float64 [N, K], and those of the labels [N]."""
    p = probabilities(values).double()
    return p, p.gather(1, classes(labels, p, "probabilities")[:, None]).squeeze(1)
