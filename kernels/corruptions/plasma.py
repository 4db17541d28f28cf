"""The plasma fractal of fog: a periodic diamond-square map (ImageNet-C's generation script)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions import weather_kernels
from fastreg.kernels.corruptions.filters import on
from fastreg.kernels.dispatch import use_triton


def map_side(size: int) -> int:
    """Side of the map that is cropped to ``size``: the next power of two (256 for 224, 32 for 32)."""
    return 1 << max(size - 1, 1).bit_length()


def plasma(uniform: Tensor, decay: float, n: int) -> Tensor:
    """float32 [B,n,n] in [0,1], cut from a map made of uniforms on [0,1) float32 [B,m,m], m a power of two.

    Every cell but the corner takes the uniform of its own place, stretched to (-1,1). The amplitude starts at 100^2 and
    falls by decay^2 per level; it cancels in the final stretch to [0,1].
    """
    scales = amplitudes(uniform.shape[-1], decay)
    if use_triton(uniform):
        return weather_kernels.plasma(uniform, on(scales, uniform.device), n)
    return plain_plasma(uniform, torch.from_numpy(scales), n)


def amplitudes(side: int, decay: float) -> np.ndarray:
    """float64, one per level of a map of ``side`` pixels."""
    amplitude, scales = 100.0, []
    for _ in range(side.bit_length() - 1):
        scales.append(amplitude * amplitude)
        amplitude /= decay
    return np.array(scales)


def plain_plasma(uniform: Tensor, scales: Tensor, n: int) -> Tensor:
    uniform = uniform.to(torch.float64, copy=True).mul_(2).sub_(1)
    height = torch.zeros_like(uniform)
    step = uniform.shape[-1]
    for scale in scales.tolist():
        half = step // 2
        corner = height[:, ::step, ::step]
        right = corner + corner.roll(-1, 2)
        below = corner + corner.roll(-1, 1)
        centre = (right + right.roll(-1, 1)).div_(4).add_(uniform[:, half::step, half::step] * scale)
        top = (right + centre + centre.roll(1, 1)).div_(4).add_(uniform[:, ::step, half::step] * scale)
        left = (below + centre + centre.roll(1, 2)).div_(4).add_(uniform[:, half::step, ::step] * scale)
        height[:, half::step, half::step] = centre
        height[:, ::step, half::step] = top
        height[:, half::step, ::step] = left
        step = half
    height -= height.amin((1, 2), keepdim=True)
    return height.div_(height.amax((1, 2), keepdim=True))[:, :n, :n].float()
