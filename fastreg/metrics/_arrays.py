"""Every metric takes torch tensors or anything numpy can read; this is the one door they come in through."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import InputError


def tensor(values: Any, what: str) -> Tensor:
    """``values`` as a tensor on the device it is on; half precision is widened, so that sums and edges are exact."""
    result = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    if result.numel() == 0:
        raise InputError(f"{what} is empty: a metric needs at least one sample")
    return result.float() if result.dtype in (torch.float16, torch.bfloat16) else result


def scores(values: Any, what: str) -> Tensor:
    """A flat vector without NaN: float32 as it is, anything else float64; both order and compare exactly."""
    result = tensor(values, what).flatten()
    result = result if result.dtype == torch.float32 else result.double()
    if bool(result.isnan().any()):
        raise InputError(f"{what} has {int(result.isnan().sum())} NaN values: find the images that give them first")
    return result


def confidences(confidence: Any, correct: Any) -> tuple[Tensor, Tensor]:
    """Two vectors of one length: confidences in [0, 1] in their own precision, and hits as float64."""
    p = tensor(confidence, "confidence").flatten()
    p = p if p.is_floating_point() else p.double()
    hit = tensor(correct, "correct").flatten().to(p.device, torch.float64)
    if len(p) != len(hit):
        raise InputError(f"{len(p)} confidences and {len(hit)} hits: each sample needs one of both")
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise InputError("confidence must lie in [0, 1]: give the largest softmax probability, not the logit")
    return p, hit
