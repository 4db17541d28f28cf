"""pixelate in one kernel: each value finds its box, adds it up across and down as Pillow does, and is its mean.

Bytes per value: 2, and as many byte loads as a box has pixels (16 at a quarter of the side; neighbours share them in
cache). Speed on a GPU: not yet measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.dispatch import tl, triton

BLOCK = 512


@triton.jit
def pixelate_kernel(
    images_ptr,  # uint8 [B,n,n,3]
    out_ptr,
    first_ptr,  # int32 [n]: of each row or column, its box's first
    count_ptr,  # int32 [n]: and how many
    n,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = value < n * n * 3
    y = value // (n * 3)
    x = value // 3 % n
    c = value % 3
    start = tl.program_id(1).to(tl.int64) * (n * n * 3)
    top = tl.load(first_ptr + y, mask=live, other=0)
    high = tl.load(count_ptr + y, mask=live, other=1)
    left = tl.load(first_ptr + x, mask=live, other=0)
    wide = tl.load(count_ptr + x, mask=live, other=1)
    of_row = (4194304 + wide // 2) // wide  # 2 ** 22 over the count, rounded
    of_column = (4194304 + high // 2) // high
    total = tl.zeros([BLOCK], tl.int32)
    for i in tl.static_range(MOST):
        row = tl.zeros([BLOCK], tl.int32)
        for j in tl.static_range(MOST):
            place = ((top + i) * n + left + j) * 3 + c
            row += tl.load(images_ptr + start + place, mask=live & (i < high) & (j < wide), other=0).to(tl.int32)
        total += (row * of_row + 2097152) >> 22
    tl.store(out_ptr + start + value, ((total * of_column + 2097152) >> 22).to(tl.uint8), mask=live)


def pixelate(images: Tensor, first: Tensor, count: Tensor, most: int) -> Tensor:
    """uint8 [B,n,n,3] whose row and column i become the mean of ``count[i]`` from ``first[i]`` on, int [n]; ``most`` is
    the largest count."""
    batch, n = images.shape[:2]
    out = torch.empty_like(images)
    grid = (triton.cdiv(n * n * 3, BLOCK), batch)
    pixelate_kernel[grid](
        images, out, first.int(), count.int(), n, MOST=most, BLOCK=BLOCK, enable_fp_fusion=False
    )  # fmt: skip
    return out
