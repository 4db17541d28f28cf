"""Temperature scaling: the temperature that makes logits most likely."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastreg.errors import InputError
from fastreg.metrics.inputs import fit_arguments

ELEMENTS = 1 << 17  # logits that are float64 at a time: they stay in the cache
PRECISION = 1e-9  # relative
STEPS = 200


def fit_temperature(logits: Any, labels: Any) -> float:
    """The temperature T > 0 that minimizes the mean of -log softmax(logits / T)[label], in float64.

    The loss is convex in 1 / T, so the minimum is unique: the root of its slope, found by Newton's method inside a
    bracket.

    Args:
        logits: Float [N, K]. -inf excludes a class of a sample.
        labels: Class indices, integers [N].

    Returns:
        T, not percent, to 1e-4 or better.

    Raises:
        InputError: A logit is NaN or inf, a label is not one of the classes or has a logit of -inf, or no T has the
            smallest loss: the loss falls towards T = 0 if each label has the largest logit of its row, and towards
            T = inf if the labels' logits are on average no larger than the others.

    Source:
        Guo et al., On calibration of modern neural networks (ICML 2017), section 4.2.
    """
    z, y = fit_arguments(logits, labels)
    if not any(bool((own < 0).any()) for _, own in _chunks(z, y)):
        raise InputError("`labels` each have the largest logit of their row, so the best T is 0: add samples.")
    if _derivatives(z, y, 0.0)[0] >= 0:
        raise InputError("`labels` have no larger logits than other classes, so the best T is infinite: check them.")
    return 1 / _root(z, y)


def _root(z: Tensor, y: Tensor) -> float:
    """The inverse temperature at which the slope is 0."""
    low, high = 0.0, torch.inf  # slopes below 0 and above 0
    beta, moved = 0.0, torch.inf
    for _ in range(STEPS):
        slope, curvature = _derivatives(z, y, beta)
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = slope / curvature if curvature > 0 else torch.inf
        if not low <= beta - step <= high or 2 * abs(step) > moved:  # Newton's method leaves the bracket, or is slow
            step = beta - (2 * beta if high == torch.inf else (low + high) / 2)
        beta, moved = beta - step, abs(step)
        if moved <= PRECISION * beta:
            break
    return beta


def _derivatives(z: Tensor, y: Tensor, beta: float) -> tuple[float, float]:
    """First and second derivative of the mean loss in the inverse temperature."""
    slope = curvature = torch.zeros((), dtype=torch.float64, device=z.device)
    for rows, own in _chunks(z, y):
        finite = torch.where(rows.isfinite(), rows, 0.0)
        p = torch.where(rows.isfinite(), beta * finite, -torch.inf).softmax(1)
        mean = (p * finite).sum(1, keepdim=True)
        slope = slope + (mean - own).sum()
        curvature = curvature + (p * (finite - mean).square()).sum()
    return float(slope) / len(z), float(curvature) / len(z)


def _chunks(z: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks of rows: logits minus the row's largest, float64 [n, K], and those of the labels, [n, 1]."""
    count = max(1, ELEMENTS // z.shape[1])
    for rows, labels in zip(z.split(count), y.split(count)):
        rows = rows.double()
        rows = rows - rows.amax(1, keepdim=True)
        yield rows, rows.gather(1, labels[:, None])
