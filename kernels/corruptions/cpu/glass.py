"""glass_blur's shuffle as published: pixel after pixel in reverse raster order takes the value at its shift."""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run


@compiled
def _shuffle(first, last, dx, dy, reach, out):
    """``out`` uint8 [B, n, n, 3] in place; shifts int16 [B, passes, n, n]."""
    n = out.shape[1]
    for b in range(first, last):
        for turn in range(dx.shape[1]):
            for y in range(n - reach, reach, -1):
                for x in range(n - reach, reach, -1):
                    row = y + min(max(dy[b, turn, y, x], -reach), reach - 1)  # no shift reads outside the image
                    column = x + min(max(dx[b, turn, y, x], -reach), reach - 1)
                    for c in range(3):
                        out[b, y, x, c] = out[b, row, column, c]


def shuffle(images: Tensor, dx: Tensor, dy: Tensor, reach: int) -> Tensor:
    """``glass.shuffle_reference``."""
    out = images.clone(memory_format=torch.contiguous_format)
    shifts = (as_array(d.short()) for d in (dx, dy))
    run(_shuffle, len(images), *shifts, reach, as_array(out), cost=2 * dx.numel())
    return out
