"""What the corruptions of ImageNet-C-bar share: parameters per image, coordinates, and the last step to levels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.pixels import on


def uniforms(key: Key, operation: str, count: int) -> np.ndarray:
    """float64 [B, count], uniform on [0, 1). The host draws numbers per image."""
    return philox.field(philox.uniform, key.seed, key.samples, count, key.severity, operation).astype(np.float64)


def between(uniform: np.ndarray, low: float, high: float) -> Tensor:
    """``uniform`` stretched to [low, high): a field on the host."""
    return torch.from_numpy(np.ascontiguousarray(uniform * (high - low) + low))


def per_image(fields: dict, name: str, device: torch.device) -> Tensor:
    """A field as float64 [B, 1, 1] on the device, or [B, 1, 1, k] of a field [B, k]."""
    values = on(fields[name].double(), device)
    return values.reshape(len(values), 1, 1, *values.shape[1:])


def rows_and_columns(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """float64 coordinates of pixels: rows [n, 1] and columns [n]."""
    steps = torch.arange(n, dtype=torch.float64, device=device)
    return steps[:, None], steps


def to_levels(x: Tensor) -> Tensor:
    """uint8 of numbers on the 0-255 scale: clip, truncate."""
    return x.clamp(0, 255).to(torch.uint8)
