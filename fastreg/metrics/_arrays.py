"""Every metric takes torch tensors or anything numpy can read; this is the one door they come in through.

What does not fit is an InputError that names the argument.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import InputError


def tensor(values: Any, what: str) -> Tensor:
    """``values`` as a tensor on the device it is on; half precision is widened, so that sums and edges are exact."""
    try:
        result = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be an array of numbers, but is {type(values).__name__} ({error})") from error
    if result.is_complex():
        raise InputError(f"{what} must be an array of real numbers, but is {str(result.dtype)[6:]}")
    if result.numel() == 0:
        raise InputError(f"{what} is empty: a metric needs at least one sample")
    return result.float() if result.dtype in (torch.float16, torch.bfloat16) else result


def vector(values: Any, what: str) -> Tensor:
    """One number per sample: [N]; [N, 1] and a single number are taken for that."""
    result = tensor(values, what)
    if result.ndim and result.numel() != len(result):
        raise InputError(f"{what} is {list(result.shape)}: give one number per sample, [N]")
    return result.flatten()


def matrix(values: Any, what: str) -> Tensor:
    """[N, K]: one number per sample and class."""
    result = tensor(values, what)
    if result.ndim != 2:
        raise InputError(f"{what} is {list(result.shape)}: give one number per sample and class, [N, K]")
    return result


def shares(values: Any, what: str, hint: str) -> Tensor:
    """A vector in [0, 1], in its own precision if that is a float's."""
    result = vector(values, what)
    result = result if result.is_floating_point() else result.double()
    if not bool(((result >= 0) & (result <= 1)).all()):
        raise InputError(f"{what} must lie in [0, 1]: {hint}")
    return result


def scores(values: Any, what: str) -> Tensor:
    """A vector without NaN: float32 as it is, anything else float64; both order and compare exactly."""
    result = vector(values, what)
    result = result if result.dtype == torch.float32 else result.double()
    if bool(result.isnan().any()):
        raise InputError(f"{what} has {int(result.isnan().sum())} NaN values: find the images that give them first")
    return result


def confidences(confidence: Any, correct: Any) -> tuple[Tensor, Tensor]:
    """Two vectors of one length: confidences in [0, 1] in their own precision, and hits as float64."""
    p = shares(confidence, "confidence", "give the largest softmax probability, not the logit")
    hit = shares(correct, "correct", "give the hits, 1 for right and 0 for wrong").to(p.device, torch.float64)
    if len(p) != len(hit):
        raise InputError(f"{len(p)} confidences and {len(hit)} hits: each sample needs one of both")
    return p, hit


def classes(labels: Any, outputs: Tensor) -> Tensor:
    """int64 [N] beside ``outputs`` [N] or [N, K], whose columns they name."""
    y = vector(labels, "labels")
    if y.is_floating_point() and not bool((y == y.trunc()).all()):
        raise InputError("labels must be whole numbers, the index of each sample's class")
    y = y.to(outputs.device, torch.int64)
    if len(y) != len(outputs):
        raise InputError(f"{len(outputs)} outputs and {len(y)} labels: each sample needs one of both")
    if outputs.ndim == 2 and not bool(((y >= 0) & (y < outputs.shape[1])).all()):
        raise InputError(f"labels must lie in 0..{outputs.shape[1] - 1}, the outputs have {outputs.shape[1]} classes")
    return y


def probabilities(values: Any) -> Tensor:
    """float64 [N, K] in [0, 1] whose rows sum to 1, as far as half precision's do."""
    p = matrix(values, "probabilities").double()
    if not bool(((p >= 0) & (p <= 1)).all()) or not bool(((p.sum(1) - 1).abs() < 0.01).all()):
        raise InputError("probabilities must lie in [0, 1] and sum to 1 in every row: give the softmax, not the logits")
    return p


def bin_count(bins: Any) -> int:
    """A whole number of bins, 1 or more."""
    try:
        count = operator.index(bins)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"bins is {bins!r}: give a whole number, 1 or more")
    return count
