"""The corruptions that others' batched operations give too: kornia's filters and colour spaces, and plain torch.

A peer is ``(uint8 [B,n,n,3], parameter) -> uint8`` in float32, to a level the published corruption
(``tests/benchmarks/suites/test_suites.py``): their route to the same pixels, as their documentation has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastreg.benchmarks.peers.training import need
from fastreg.kernels.corruptions.defocus import disc

Peer = Callable[..., Tensor]


def peers() -> tuple[dict[tuple[str, str], Peer], str]:
    """``({(corruption, peer): function}, why kornia's are missing)``."""
    plain: dict[tuple[str, str], Peer] = {
        ("gaussian_noise", "torch eager"): _levels(lambda x, sigma: x + sigma * torch.randn_like(x)),
        ("contrast", "torch eager"): _levels(_contrast),
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

    def defocus(x: Tensor, parameter: tuple[float, float]) -> Tensor:
        return filters.filter2d(x, torch.from_numpy(disc(*parameter))[None].to(x), border_type="reflect")

    return plain | {
        ("brightness", "kornia"): _levels(lambda x, shift: hsv(x, 1.0, 0.0, shift)),
        ("saturate", "kornia"): _levels(lambda x, parameter: hsv(x, parameter[0], parameter[1], 0.0)),
        ("gaussian_blur", "kornia"): _levels(gaussian),
        ("defocus_blur", "kornia"): _levels(defocus),
    }, ""


def _levels(function: Callable[[Tensor, Any], Tensor]) -> Peer:
    def call(images: Tensor, parameter: Any) -> Tensor:
        x = function(images.permute(0, 3, 1, 2).contiguous() / 255, parameter)
        return (x.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1)

    return call


def _contrast(x: Tensor, factor: float) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean
