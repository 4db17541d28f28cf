"""Conversion and checks of the arguments of all metrics: torch tensors, or anything that numpy reads.

An InputError names the argument, its value and the allowed values.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import InputError


def tensor(values: Any, name: str) -> Tensor:
    """``values`` as a tensor on its own device. Half precision becomes float32, so that sums and edges are exact."""
    try:
        result = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` is {type(values).__name__} ({error}): give an array of numbers.") from error
    if result.is_complex():
        raise InputError(f"`{name}` is {str(result.dtype)[6:]}: give an array of real numbers.")
    if result.numel() == 0:
        raise InputError(f"`{name}` is empty: give at least one sample.")
    return result.float() if result.dtype in (torch.float16, torch.bfloat16) else result


def vector(values: Any, name: str) -> Tensor:
    """[N]: one number per sample. [N, 1] and a single number become [N]."""
    result = tensor(values, name)
    if result.ndim and result.numel() != len(result):
        raise InputError(f"`{name}` has shape {list(result.shape)}: give one number per sample, [N].")
    return result.flatten()


def matrix(values: Any, name: str, shape: str = "one number per sample and class, [N, K]") -> Tensor:
    result = tensor(values, name)
    if result.ndim != 2:
        raise InputError(f"`{name}` has shape {list(result.shape)}: give {shape}.")
    return result


def shares(values: Any, name: str, hint: str) -> Tensor:
    """A vector in [0, 1]; floats keep their precision, other numbers become float64."""
    result = vector(values, name)
    result = result if result.is_floating_point() else result.double()
    outside = ~((result >= 0) & (result <= 1))  # NaN included
    if bool(outside.any()):
        raise InputError(f"`{name}` has the value {result[outside][0]:g}, outside [0, 1]: {hint}.")
    return result


def scores(values: Any, name: str) -> Tensor:
    """A vector without NaN. float32 stays, other numbers become float64, so that order and comparisons are exact."""
    result = vector(values, name)
    result = result if result.dtype == torch.float32 else result.double()
    if bool(result.isnan().any()):
        raise InputError(f"`{name}` has {int(result.isnan().sum())} NaN values: leave those samples out.")
    return result


def confidences(confidence: Any, correct: Any) -> tuple[Tensor, Tensor]:
    """Two vectors of one length in [0, 1]: confidences in their own precision, hits as float64."""
    p = shares(confidence, "confidence", "give the largest softmax probability, not the logit")
    hit = shares(correct, "correct", "give hits, 1 for right and 0 for wrong").to(p.device, torch.float64)
    if len(p) != len(hit):
        raise InputError(f"`confidence` has {len(p)} values and `correct` {len(hit)}: give one of each per sample.")
    return p, hit


def classes(labels: Any, outputs: Tensor, name: str = "outputs") -> Tensor:
    """int64 [N]: class indices, columns of ``outputs`` where those are [N, K]."""
    y = vector(labels, "labels")
    if y.is_floating_point() and not bool((y == y.trunc()).all()):
        raise InputError("`labels` has fractions or NaN: give whole numbers, the index of each sample's class.")
    y = y.to(outputs.device, torch.int64)
    if len(y) != len(outputs):
        raise InputError(f"`{name}` has {len(outputs)} rows and `labels` {len(y)}: give one of each per sample.")
    if outputs.ndim == 2 and not bool(((y >= 0) & (y < outputs.shape[1])).all()):
        count = outputs.shape[1]
        raise InputError(f"`labels` has values outside 0..{count - 1}: `{name}` has {count} classes.")
    return y


def probabilities(values: Any) -> Tensor:
    """[N, K] in [0, 1], rows that sum to 1 within the error of half precision; float32 stays, others become float64."""
    p = matrix(values, "probabilities")
    p = p if p.dtype == torch.float32 else p.double()
    sums = p.sum(1, dtype=torch.float64)
    if not bool(((p >= 0) & (p <= 1)).all()) or not bool(((sums - 1).abs() < 0.01).all()):
        raise InputError(
            "`probabilities` has values outside [0, 1] or rows that do not sum to 1: give the softmax, not the logits."
        )
    return p


def bin_count(bins: Any) -> int:
    """``bins`` as an int, 1 or more."""
    try:
        count = operator.index(bins)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"`bins` is {bins!r}: give a whole number, 1 or more.")
    return count


def fit_arguments(logits: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Logits [N, K] and labels [N] with a finite loss. Raises InputError for others."""
    z = matrix(logits, "logits")
    y = classes(labels, z, "logits")
    if bool((z.isnan() | (z == torch.inf)).any()):
        raise InputError("`logits` has NaN or inf: leave those samples out.")
    if bool((z.gather(1, y[:, None]) == -torch.inf).any()):
        raise InputError("`logits` has -inf for a label, which then has probability 0: leave those samples out.")
    return z, y
