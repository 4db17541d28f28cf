"""Checks of the tensors that callers pass. Each error names the parameter, its value and what to give instead."""

from __future__ import annotations

import torch
from torch import Tensor


def check_tensor(
    name: str, value: object, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device | None = None
) -> None:
    """Raise TypeError unless ``value`` is a tensor of ``dtype``, ValueError unless it has ``shape`` and ``device``."""
    wanted = f"a tensor {dtype} {list(shape)}"
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` is {type(value).__name__}: give {wanted}.")
    if value.dtype != dtype:
        raise TypeError(f"`{name}` is {value.dtype}: give {wanted}.")
    if tuple(value.shape) != shape:
        raise ValueError(f"`{name}` has shape {list(value.shape)}: give {wanted}.")
    if device is not None and value.device != device:
        raise ValueError(f"`{name}` is on {value.device}: give {wanted} on {device}.")


def check_range(name: str, value: Tensor, low: float, high: float) -> None:
    """Raise ValueError unless every element of ``value`` is from ``low`` to ``high``. Reads the tensor's values."""
    if within(value, low, high):
        return
    good = (value >= low) & (value <= high)
    if not good.all():
        raise ValueError(f"`{name}` holds {value[~good].tolist()[:8]}: give values from {low} to {high}.")


def within(value: Tensor, low: float, high: float) -> bool:
    """Whether every element of ``value`` is from ``low`` to ``high``: one pass. NaN is not. Reads the values."""
    if value.numel() == 0:
        return True
    least, most = value.aminmax()
    return low <= least.item() and most.item() <= high
