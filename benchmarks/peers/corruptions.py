"""Corruptions with kornia's batched filters and color spaces, and with plain PyTorch.

A peer gives the published corruption to one level, in float32, by the route of its own documentation
(``tests/benchmarks/suites/test_corruptions.py`` compares the pixels).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastreg.benchmarks.peers import need
from fastreg.kernels.corruptions.defocus import disc

Apply = Callable[[Tensor], Tensor]
Peer = Callable[[Any, torch.device], Apply]


def peers() -> tuple[dict[tuple[str, str], Peer], str]:
    """Peers of ``corrupt``.

    Returns:
        ``(peers, reason)``. ``peers[corruption, peer](parameter, device)`` puts its constants on the device and returns
        a function of uint8 [B, n, n, 3] that gives uint8 of the same shape. ``reason``: why kornia is missing, or
        empty.
    """
    plain: dict[tuple[str, str], Peer] = {
        ("gaussian_noise", "torch eager"): lambda sigma, _: _levels(lambda x: x + sigma * torch.randn_like(x)),
        ("contrast", "torch eager"): lambda factor, _: _levels(lambda x: _contrast(x, factor)),
    }
    try:
        color, filters = need("kornia.color"), need("kornia.filters")
    except ImportError as error:
        return plain, str(error)

    def hsv(x: Tensor, factor: float, addend: float, shift: float) -> Tensor:
        hue, saturation, value = color.rgb_to_hsv(x).split(1, 1)
        changed = (saturation * factor + addend).clamp(0, 1), (value + shift).clamp(0, 1)
        return color.hsv_to_rgb(torch.cat((hue, *changed), 1))

    def gaussian(x: Tensor, sigma: float) -> Tensor:
        side = 2 * int(4 * sigma + 0.5) + 1
        return filters.gaussian_blur2d(x, (side, side), (sigma, sigma), border_type="replicate")

    def defocus(parameter: tuple[float, float], device: torch.device) -> Apply:
        kernel = torch.from_numpy(disc(*parameter))[None].float().to(device)
        return _levels(lambda x: filters.filter2d(x, kernel, border_type="reflect"))

    return plain | {
        ("brightness", "kornia"): lambda shift, _: _levels(lambda x: hsv(x, 1.0, 0.0, shift)),
        ("saturate", "kornia"): lambda parameter, _: _levels(lambda x: hsv(x, parameter[0], parameter[1], 0.0)),
        ("gaussian_blur", "kornia"): lambda sigma, _: _levels(lambda x: gaussian(x, sigma)),
        ("defocus_blur", "kornia"): defocus,
    }, ""


def _levels(function: Apply) -> Apply:
    def call(images: Tensor) -> Tensor:
        x = function(images.permute(0, 3, 1, 2).contiguous() / 255)
        return (x.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1)

    return call


def _contrast(x: Tensor, factor: float) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean
