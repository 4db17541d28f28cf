"""The plasma fractal of fog: a periodic diamond-square map (ImageNet-C's generation script)."""

from __future__ import annotations

import torch
from torch import Tensor


def map_side(size: int) -> int:
    """Side of the map that is cropped to ``size``: the next power of two (256 for 224, 32 for 32)."""
    return 1 << max(size - 1, 1).bit_length()


def plasma(uniform: Tensor, decay: float) -> Tensor:
    """float64 [B,m,m] in [0,1] from uniforms on (-1,1) [B,m,m], m a power of two.

    Every cell but the corner takes the uniform of its own place. The amplitude starts at 100^2 and falls by decay^2
    per level; it cancels in the final stretch to [0,1].
    """
    side = uniform.shape[-1]
    height = torch.zeros_like(uniform, dtype=torch.float64)
    step, amplitude = side, 100.0
    while step > 1:
        half = step // 2
        scale = amplitude * amplitude
        corner = height[:, ::step, ::step]
        right = corner + corner.roll(-1, 2)
        below = corner + corner.roll(-1, 1)
        centre = (right + right.roll(-1, 1)).div_(4).add_(uniform[:, half::step, half::step] * scale)
        top = (right + centre + centre.roll(1, 1)).div_(4).add_(uniform[:, ::step, half::step] * scale)
        left = (below + centre + centre.roll(1, 2)).div_(4).add_(uniform[:, half::step, ::step] * scale)
        height[:, half::step, half::step] = centre
        height[:, ::step, half::step] = top
        height[:, half::step, ::step] = left
        step, amplitude = half, amplitude / decay
    height -= height.amin((1, 2), keepdim=True)
    return height.div_(height.amax((1, 2), keepdim=True))
