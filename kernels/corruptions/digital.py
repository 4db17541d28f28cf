"""pixelate and jpeg_compression, bit-equal to Pillow's BOX resize and JPEG. Source: ImageNet-C's generation script."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.filters import on
from fastreg.kernels.jpeg import jpeg_round_trip


@lru_cache(maxsize=64)
def box_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Pillow's BOX filter along one line: first source index and number of source pixels, int64 [target] each.

    Pixel x of the source counts for output j when -1/2 < (x - centre + 1/2) / scale <= 1/2, centre = (j + 1/2) source
    / target, scale = max(source / target, 1).
    """
    step = source / target
    scale = max(step, 1.0)
    centre = (np.arange(target) + 0.5) * step
    place = (np.arange(source)[None] - centre[:, None] + 0.5) / scale
    taken = (place > -0.5) & (place <= 0.5)
    return taken.argmax(1), taken.sum(1)


def box_resize(images: Tensor, target: int) -> Tensor:
    """uint8 [B,h,w,3] to [B,target,target,3], bit-equal to Pillow's BOX: columns first, each pass rounded to uint8 with
    22-bit integer weights."""
    for axis in (2, 1):
        first, count = (on(a, images.device) for a in box_taps(images.shape[axis], target))
        shape = [1, 1, 1, 1]
        shape[axis] = target
        most = int(box_taps(images.shape[axis], target)[1].max())
        total = images.index_select(axis, first).to(torch.int32)
        if most == 1:
            images = total.to(torch.uint8)
            continue
        for k in range(1, most):
            taken = (count > k).to(torch.int32).view(shape)
            total += images.index_select(axis, (first + k).clamp_(max=images.shape[axis] - 1)) * taken
        weight = (2**22 / count + 0.5).to(torch.int32).view(shape)
        images = (total * weight + 2**21 >> 22).to(torch.uint8)
    return images


def pixelate(images: Tensor, scale: float, fields: dict) -> Tensor:
    """BOX down to int(n * scale), BOX up again."""
    side = images.shape[1]
    return box_resize(box_resize(images, max(1, int(side * scale))), side)


def jpeg_compression(images: Tensor, quality: int, fields: dict) -> Tensor:
    """One JPEG round trip."""
    return jpeg_round_trip(images, quality)
