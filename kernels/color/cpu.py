"""``color_jitter`` on the compiled CPU route: one pass for an image's sums, one for its pixels. 3 bytes per value."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.color.reference import added_levels
from fastreg.kernels.compiled import as_array, compiled, run


@compiled
def _sum(first, last, images, sums):
    for b in range(first, last):
        red, green, blue = np.int64(0), np.int64(0), np.int64(0)
        for i in range(images.shape[1]):
            red += images[b, i, 0]
            green += images[b, i, 1]
            blue += images[b, i, 2]
        sums[b, 0], sums[b, 1], sums[b, 2] = red, green, blue


@compiled
def _level(x):
    x = np.float32(0) if x < 0 else x
    x = np.float32(255) if x > 255 else x
    return np.uint8(np.int32(x + np.float32(0.5)))


@compiled
def _jitter(first, last, images, own, gray, added, out):
    for b in range(first, last):
        for i in range(images.shape[1]):
            red, green, blue = np.float32(images[b, i, 0]), np.float32(images[b, i, 1]), np.float32(images[b, i, 2])
            shade = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
            shade *= gray[b]
            out[b, i, 0] = _level(red * own[b] + (shade + added[b, 0]))
            out[b, i, 1] = _level(green * own[b] + (shade + added[b, 1]))
            out[b, i, 2] = _level(blue * own[b] + (shade + added[b, 2]))


def color_jitter_cpu(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, lighting: Tensor | None = None
) -> Tensor:
    """``color_jitter`` on checked arguments."""
    batch, out = len(images), torch.empty_like(images)
    source, target = (as_array(x).reshape(batch, -1, 3) for x in (images, out))
    sums = torch.empty((batch, 3), dtype=torch.int64)
    run(_sum, batch, source, as_array(sums), cost=0.5 * images.numel())
    both = brightness * contrast
    added = added_levels(images, sums, brightness, contrast, lighting)
    factors = as_array(both * saturation), as_array(both * (1 - saturation))
    run(_jitter, batch, source, *factors, as_array(added), target, cost=images.numel())
    return out
