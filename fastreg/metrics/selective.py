"""Selective classification: the error on the samples of highest confidence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.metrics.inputs import confidences


def risk_coverage(confidence: Any, correct: Any) -> tuple[Tensor, Tensor]:
    """The risk-coverage curve: the error among the k most confident samples, for k = 1 to N.

    Samples are sorted by descending confidence; equal confidences keep their order.

    Args:
        confidence: Largest softmax probability of each sample, float [N] in [0, 1].
        correct: Hits [N], 1 (right) or 0 (wrong).

    Returns:
        Coverage k / N and risk, the error among those k samples: two float64 [N] tensors in percent.

    Raises:
        InputError: A value is outside [0, 1], or the lengths differ.

    Source:
        Geifman and El-Yaniv, Selective classification for deep neural networks (NeurIPS 2017), section 2.
    """
    p, hit = confidences(confidence, correct)
    order = p.argsort(descending=True, stable=True)
    kept = torch.arange(1, len(p) + 1, dtype=torch.float64, device=p.device)
    return 100.0 * kept / len(p), 100.0 * (1 - hit[order]).cumsum(0) / kept


def aurc(confidence: Any, correct: Any) -> float:
    """Area under the risk-coverage curve: the mean risk over the N coverages.

    Args:
        confidence: Largest softmax probability of each sample, float [N] in [0, 1].
        correct: Hits [N], 1 (right) or 0 (wrong).

    Returns:
        Percent.

    Raises:
        InputError: A value is outside [0, 1], or the lengths differ.

    Source:
        Geifman et al., Bias-reduced uncertainty estimation for deep neural classifiers (ICLR 2019), section 2.
    """
    return float(risk_coverage(confidence, correct)[1].mean())
