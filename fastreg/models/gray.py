"""Models of gray images: their first convolution takes the gray value of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fastreg.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L"


def to_gray(x: Tensor) -> Tensor:
    """The gray value of [B, 3, h, w], as [B, 1, h, w]; one channel stays. Exact where the channels are equal."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    return red + LUMA[1] * (green - red) + LUMA[2] * (blue - red)


def gray_statistics(values: Sequence[float]) -> tuple[float, float, float]:
    """One mean or standard deviation for all channels, with which ``to_gray`` of normalized pixels is normalized."""
    gray = sum(weight * value for weight, value in zip(LUMA, values))
    return gray, gray, gray


def with_gray_input(model: nn.Module, name: str) -> nn.Module:
    """Let the first convolution take the gray value; its filters become the sum over the three channels.

    On gray images the model's outputs stay the same, up to the order of additions.

    Raises:
        InputError: The first layer with three input channels is not a plain convolution.
    """
    first = next((m for m in model.modules() if getattr(m, "in_channels", 0) == 3), None)
    if not isinstance(first, nn.Conv2d) or first.groups != 1 or not first.weight.requires_grad:
        raise InputError(f"{name} does not begin with a convolution of three channels: set `channels` to 3.")
    first.in_channels = 1
    first.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))
    first.register_forward_pre_hook(_gray_input)
    return model


def _gray_input(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (to_gray(given[0]), *given[1:])
