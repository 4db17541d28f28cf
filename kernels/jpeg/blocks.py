"""The JPEG transform and quantizer of 8x8 blocks in integers, for the kernels of ``jpeg_round_trip``.

A tile is int32 [R,8], eight rows per block, stored as a tuple of its eight columns [R]. The forward and inverse
transforms are libjpeg's "islow" ones (jfdctint, jidctint: 13-bit constants, two roundings each); the quantizer is that
of jcdctmgr, which rounds halves away from zero.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.dispatch import tl, triton

# T.81 annex K, tables K.1 and K.2
_LUMA = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99"""


def quantizer_steps(quality: int) -> np.ndarray:
    """Quantizer step per coefficient of luma and chroma, int64 [2,64], at ``quality`` from 1 to 100."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = np.array([table.split() for table in (_LUMA, _CHROMA)], np.int64)
    return ((tables * scale + 50) // 100).clip(1, 255)


@lru_cache(maxsize=128)
def quantizers(quality: int, device: str) -> tuple[Tensor, Tensor]:
    """Steps, and ceil(2**32 / (8 step)) for the kernel's division, int32 [2,64] each."""
    step = quantizer_steps(quality)
    reciprocal = -(-(2**32) // (8 * step))
    return torch.from_numpy(step.astype(np.int32)).to(device), torch.from_numpy(reciprocal.astype(np.int32)).to(device)


@triton.jit
def split(x, R: tl.constexpr):
    """The eight columns [R] of [R,8]."""
    even, odd = tl.split(tl.reshape(x, (R, 2, 2, 2)))
    x04, x26 = tl.split(even)
    x15, x37 = tl.split(odd)
    x0, x4 = tl.split(x04)
    x2, x6 = tl.split(x26)
    x1, x5 = tl.split(x15)
    x3, x7 = tl.split(x37)
    return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def join(x, R: tl.constexpr):
    """[R,8] from its eight columns [R]."""
    even = tl.join(tl.join(x[0], x[4]), tl.join(x[2], x[6]))
    odd = tl.join(tl.join(x[1], x[5]), tl.join(x[3], x[7]))
    return tl.reshape(tl.join(even, odd), (R, 8))


@triton.jit
def _transpose(x, R: tl.constexpr):
    """The eight columns of [R,8] with each block transposed."""
    return split(tl.reshape(tl.permute(tl.reshape(x, (R // 8, 8, 8)), (0, 2, 1)), (R, 8)), R)


@triton.jit
def _forward(x, R: tl.constexpr):
    """8-point DCT of each row, scaled by 2**13 sqrt(8), as [R,8]."""
    s0 = x[0] + x[7]
    s1 = x[1] + x[6]
    s2 = x[2] + x[5]
    s3 = x[3] + x[4]
    d0 = x[3] - x[4]
    d1 = x[2] - x[5]
    d2 = x[1] - x[6]
    d3 = x[0] - x[7]
    e0 = s0 + s3
    e1 = s1 + s2
    e2 = s1 - s2
    e3 = s0 - s3
    turn = (e2 + e3) * 4433
    z5 = (d0 + d1 + d2 + d3) * 9633
    z1 = (d0 + d3) * -7373
    z2 = (d1 + d2) * -20995
    z3 = (d0 + d2) * -16069 + z5
    z4 = (d1 + d3) * -3196 + z5
    y1 = d3 * 12299 + z1 + z4
    y3 = d2 * 25172 + z2 + z3
    y5 = d1 * 16819 + z2 + z4
    y7 = d0 * 2446 + z1 + z3
    return join(((e0 + e1) * 8192, y1, turn + e3 * 6270, y3, (e0 - e1) * 8192, y5, turn - e2 * 15137, y7), R)


@triton.jit
def _inverse(c, R: tl.constexpr):
    """The transpose of ``_forward``."""
    turn = (c[2] + c[6]) * 4433
    t2 = turn - c[6] * 15137
    t3 = turn + c[2] * 6270
    t0 = (c[0] + c[4]) * 8192
    t1 = (c[0] - c[4]) * 8192
    z5 = (c[7] + c[5] + c[3] + c[1]) * 9633
    z1 = (c[7] + c[1]) * -7373
    z2 = (c[5] + c[3]) * -20995
    z3 = (c[7] + c[3]) * -16069 + z5
    z4 = (c[5] + c[1]) * -3196 + z5
    o0 = c[7] * 2446 + z1 + z3
    o1 = c[5] * 16819 + z2 + z4
    o2 = c[3] * 25172 + z2 + z3
    o3 = c[1] * 12299 + z1 + z4
    e0 = t0 + t3
    e1 = t1 + t2
    e2 = t1 - t2
    e3 = t0 - t3
    return join((e0 + o3, e1 + o2, e2 + o1, e3 + o0, e3 - o0, e2 - o1, e1 - o2, e0 - o3), R)


@triton.jit
def transform_and_quantize(x, step_ptr, reciprocal_ptr, R: tl.constexpr):
    """DCT, quantizer and inverse DCT: eight columns [R] of levels minus 128 become eight columns of levels 0 to 255."""
    x = _transpose((_forward(x, R) + 1024) >> 11, R)  # rounded to two extra bits
    y = (_forward(x, R) + 16384) >> 15  # 8 times the coefficient, transposed

    place = (tl.arange(0, R) % 8)[:, None] + 8 * tl.arange(0, 8)[None, :]
    step = tl.load(step_ptr + place)
    reciprocal = tl.load(reciprocal_ptr + place).to(tl.uint32, bitcast=True)
    size = tl.umulhi((tl.abs(y) + step * 4).to(tl.uint32), reciprocal).to(tl.int32) * step
    x = split(tl.where(y < 0, -size, size), R)

    x = _transpose((_inverse(x, R) + 1024) >> 11, R)
    y = ((_inverse(x, R) + 131072) >> 18) + 128
    return split(tl.minimum(tl.maximum(y, 0), 255), R)
