"""Scores for out-of-distribution detection from logits: higher is more in-distribution.

float16 and bfloat16 logits are scored in float32. A row with a NaN has the score NaN. No score synchronizes with the
device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.errors import InputError

__all__ = ["energy", "entropy", "max_logit", "max_softmax"]


def max_softmax(logits: Tensor) -> Tensor:
    """The largest softmax probability.

    Args:
        logits: float32, float64, float16 or bfloat16 [B, K].

    Returns:
        float32 [B], or float64 [B] for float64 logits, in [1 / K, 1].

    Raises:
        InputError: ``logits`` is not a float tensor [B, K].

    Source:
        Hendrycks and Gimpel, A baseline for detecting misclassified and out-of-distribution examples in neural networks
        (ICLR 2017), section 2.
    """
    return _checked(logits).log_softmax(1).exp().amax(1)  # the operations of metrics.Tally: equal to its confidences


def max_logit(logits: Tensor) -> Tensor:
    """The largest logit.

    Args:
        logits: float32, float64, float16 or bfloat16 [B, K].

    Returns:
        float32 [B], or float64 [B] for float64 logits.

    Raises:
        InputError: ``logits`` is not a float tensor [B, K].

    Source:
        Hendrycks et al., Scaling out-of-distribution detection for real-world settings (ICML 2022), section 3.
    """
    return _checked(logits).amax(1)


def energy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The negative free energy: T log sum_k exp(z_k / T) for logits z.

    Args:
        logits: float32, float64, float16 or bfloat16 [B, K].
        temperature: T, greater than 0.

    Returns:
        float32 [B], or float64 [B] for float64 logits.

    Raises:
        InputError: ``logits`` is not a float tensor [B, K], or ``temperature`` is not greater than 0.

    Source:
        Liu et al., Energy-based out-of-distribution detection (NeurIPS 2020), equation 4, with the sign reversed.
    """
    if not 0 < temperature < float("inf"):
        raise InputError(f"`temperature` is {temperature!r}: give a number greater than 0.")
    return temperature * (_checked(logits) / temperature).logsumexp(1)


def entropy(logits: Tensor) -> Tensor:
    """The negative entropy of the softmax: sum_k p_k log p_k. A class of probability 0 adds 0.

    Args:
        logits: float32, float64, float16 or bfloat16 [B, K].

    Returns:
        Nats, in [-log K, 0]: float32 [B], or float64 [B] for float64 logits.

    Raises:
        InputError: ``logits`` is not a float tensor [B, K].

    Source:
        Macêdo et al., Entropic out-of-distribution detection (IJCNN 2021), the entropic score.
    """
    log_p = _checked(logits).log_softmax(1)
    return torch.where(log_p == -torch.inf, 0.0, log_p.exp() * log_p).sum(1)


def _checked(logits: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.ndim != 2 or logits.shape[1] == 0:
        given = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"`logits` is {given}: give a float tensor [B, K].")
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
