"""ImageMagick's motion blur: a row of the result is the weighted sum of shifted rows of numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run


@compiled
def _blur(first, last, images, weights, dx, dy, channels, out):
    """uint8 [B, n, n C]; offsets int32 [B, taps]."""
    n, size = images.shape[1], images.shape[2]
    total = np.empty(size)
    for b in range(first, last):
        left, right = max(-dx[b].min(), 0) * channels, max(dx[b].max(), 0) * channels
        wide = np.empty((n, left + size + right))
        for y in range(n):
            for i in range(size):
                wide[y, left + i] = np.float64(np.int64(images[b, y, i]) * np.int64(257))
            for i in range(left):
                wide[y, i] = wide[y, left + i % channels]
            for i in range(right):
                wide[y, left + size + i] = wide[y, left + size - channels + i % channels]
        for y in range(n):
            total[:] = 0.0
            for tap in range(len(weights)):
                line = wide[min(max(y + dy[b, tap], 0), n - 1), left + dx[b, tap] * channels :]
                weight = weights[tap]
                for i in range(size):
                    total[i] += line[i] * weight
            for i in range(size):
                out[b, y, i] = np.uint8(np.int32(total[i] + 0.5) // np.int32(257))


def blur(images: Tensor, weights: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """``motion.motion_reference``."""
    batch, n, _, channels = images.shape
    out = torch.empty_like(images)
    source, target = (as_array(x).reshape(batch, n, -1) for x in (images, out))
    offsets = (as_array(d.int()) for d in (dx, dy))
    cost = 0.3 * images.numel() * len(weights)
    run(_blur, batch, source, as_array(weights), *offsets, channels, target, cost=cost)
    return out
