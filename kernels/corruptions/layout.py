"""Where a program of a kernel works: BLOCK neighboring values of one image, grid (blocks, images)."""

from __future__ import annotations

from fastreg.kernels.dispatch import tl, triton

BLOCK = 512


@triton.jit
def triton_block(n, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Of this program: its values, the mask of those inside the image, their row, column and channel, and the first
    value of the image."""
    size = n * n * CHANNELS
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pixel = value // CHANNELS
    first = tl.program_id(1).to(tl.int64) * size
    return value, value < size, pixel // n, pixel % n, value % CHANNELS, first
