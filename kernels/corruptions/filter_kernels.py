"""Triton kernels of the filters: Gaussian, motion, zoom, and two gathers (bilinear, glass).

Each repeats the arithmetic of the plain version beside its caller operation for operation, so launches, as those of
all corruptions, switch the contraction of multiply and add off. One program works on BLOCK neighbouring values of one
image; grid (blocks, images).

Loads and bytes per value (uint8 in and out unless said), T taps, Z zooms:
    gaussian   2 T float64 loads, 32 bytes (two passes, float64 in and out), 25 where levels come out
    motion     T byte loads, 2 bytes           zoom   4 Z float32 loads, 5 bytes
    bilinear   4 float32 loads, 8 bytes        glass  2 int16 loads per step of the chain, 3 bytes per pass
Speed on a GPU: not yet measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.corruptions.pixel_kernels import _level
from fastreg.kernels.dispatch import tl, triton

BLOCK = 512


@triton.jit
def _block(n, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Of this program: values inside the image, their mask, row, column, channel, and the image's first value."""
    size = n * n * CHANNELS
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pixel = value // CHANNELS
    first = tl.program_id(1).to(tl.int64) * size
    return value, value < size, pixel // n, pixel % n, value % CHANNELS, first


@triton.jit
def gaussian_kernel(
    x_ptr,  # float64 [B,n,n,C]
    out_ptr,
    weights_ptr,  # float64 [2 radius + 1]
    n,
    radius,
    DOWN: tl.constexpr,  # along the rows' axis, else along the columns'
    LEVELS: tl.constexpr,  # out is uint8
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    value, live, y, x, _c, first = _block(n, CHANNELS, BLOCK)
    place = y if DOWN else x
    stride = n * CHANNELS if DOWN else CHANNELS
    line = x_ptr + first + value - place * stride  # where this value's line begins
    total = tl.load(line + place * stride, mask=live, other=0.0) * tl.load(weights_ptr + radius)
    for k in range(radius):
        j = radius - k
        near = tl.load(line + tl.maximum(place - j, 0) * stride, mask=live, other=0.0)
        far = tl.load(line + tl.minimum(place + j, n - 1) * stride, mask=live, other=0.0)
        total += (near + far) * tl.load(weights_ptr + radius + j)
    tl.store(out_ptr + first + value, _level(total) if LEVELS else total, mask=live)


def gaussian(x: Tensor, weights: Tensor, levels: bool = False) -> Tensor:
    """float64 [B,n,n,C] filtered with ``weights`` [2 radius + 1] down, then across; ``levels``: as uint8."""
    batch, n, _, channels = x.shape
    x = x.contiguous()
    grid = (triton.cdiv(n * n * channels, BLOCK), batch)
    for down in (True, False):
        cut = levels and not down
        out = torch.empty_like(x, dtype=torch.uint8 if cut else x.dtype)
        gaussian_kernel[grid](
            x, out, weights, n, len(weights) // 2,
            DOWN=down, LEVELS=cut, CHANNELS=channels, BLOCK=BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
        x = out
    return x


@triton.jit
def motion_kernel(
    images_ptr,  # uint8 [B,n,n,C]
    out_ptr,
    weights_ptr,  # float64 [T]
    dx_ptr,  # int32 [B,T]
    dy_ptr,
    n,
    taps,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    value, live, y, x, c, first = _block(n, CHANNELS, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    ray = tl.program_id(1) * taps
    for i in range(taps):
        row = tl.minimum(tl.maximum(y + tl.load(dy_ptr + ray + i), 0), n - 1)
        column = tl.minimum(tl.maximum(x + tl.load(dx_ptr + ray + i), 0), n - 1)
        level = tl.load(images_ptr + first + (row * n + column) * CHANNELS + c, mask=live, other=0)
        total += (level.to(tl.int32) * 257).to(tl.float64) * tl.load(weights_ptr + i)
    tl.store(out_ptr + first + value, ((total + 0.5).to(tl.int32) // 257).to(tl.uint8), mask=live)


def motion(images: Tensor, weights: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """uint8 [B,n,n,C] blurred along the tap offsets ``dx``, ``dy`` int32 [B,T] with float64 ``weights`` [T]."""
    batch, n, _, channels = images.shape
    out = torch.empty_like(images)
    motion_kernel[(triton.cdiv(n * n * channels, BLOCK), batch)](
        images, out, weights, dx, dy, n, len(weights),
        CHANNELS=channels, BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return out


@triton.jit
def zoom_kernel(
    x_ptr,  # float32 [B,n,n,3] in [0,1]
    out_ptr,  # uint8
    left_ptr,  # int32 [Z,n]
    weight_ptr,  # float32 [Z,n]
    n,
    zooms,
    BLOCK: tl.constexpr,
):
    value, live, y, x, c, first = _block(n, 3, BLOCK)
    image = x_ptr + first + c
    total = tl.zeros([BLOCK], tl.float32)
    for z in range(zooms):
        top = tl.load(left_ptr + z * n + y, mask=live, other=0)
        left = tl.load(left_ptr + z * n + x, mask=live, other=0)
        down = tl.load(weight_ptr + z * n + y, mask=live, other=0.0)
        right = tl.load(weight_ptr + z * n + x, mask=live, other=0.0)
        below = tl.minimum(top + 1, n - 1)
        beside = tl.minimum(left + 1, n - 1)
        a = tl.load(image + (top * n + left) * 3, mask=live, other=0.0)
        b = tl.load(image + (top * n + beside) * 3, mask=live, other=0.0)
        a += (tl.load(image + (below * n + left) * 3, mask=live, other=0.0) - a) * down
        b += (tl.load(image + (below * n + beside) * 3, mask=live, other=0.0) - b) * down
        total += a + (b - a) * right
    mean = tl.math.div_rn(tl.load(x_ptr + first + value, mask=live, other=0.0) + total, (zooms + 1).to(tl.float32))
    level = tl.minimum(tl.maximum(mean, 0.0), 1.0) * 255.0
    tl.store(out_ptr + first + value, level.to(tl.int32).to(tl.uint8), mask=live)


def zoom(x: Tensor, left: Tensor, weight: Tensor) -> Tensor:
    """Mean of float32 [B,n,n,3] and its zooms as uint8 levels; ``left`` int, ``weight`` float32 [Z,n] say where each
    output row and column reads."""
    batch, n = x.shape[:2]
    out = torch.empty_like(x, dtype=torch.uint8)
    grid = (triton.cdiv(n * n * 3, BLOCK), batch)
    zoom_kernel[grid](x, out, left.int(), weight, n, len(left), BLOCK=BLOCK, enable_fp_fusion=False)
    return out


@triton.jit
def _folded(i, n, MIRROR101: tl.constexpr):
    """Indices folded into [0,n): about the edge pixels (101) or the edges."""
    if MIRROR101:
        period = tl.maximum(2 * n - 2, 1)
        i = i % period
        i = tl.where(i < 0, i + period, i)
        return tl.where(i < n, i, period - i)
    else:
        period = 2 * n
        i = i % period
        i = tl.where(i < 0, i + period, i)
        return tl.where(i < n, i, period - 1 - i)


@triton.jit
def bilinear_kernel(
    x_ptr,  # float32 [B,n,n,3]
    place_ptr,  # float64: the map [B,2,3], or the displacements (x, y) [2,B,n,n]
    alpha_ptr,  # float64 [1]: times the displacements
    out_ptr,  # float32 [B,n,n,3], or uint8
    n,
    AFFINE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """AFFINE: read at a map of the place, folded about the edge pixels. Else: at a displaced place, folded about the
    edges, and cut to levels."""
    value, live, y, x, c, first = _block(n, 3, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    if AFFINE:
        m = place_ptr + image * 6
        y = y.to(tl.float64)
        x = x.to(tl.float64)
        row = tl.load(m + 3) * x + tl.load(m + 4) * y + tl.load(m + 5)
        column = tl.load(m) * x + tl.load(m + 1) * y + tl.load(m + 2)
    else:
        pixel = image * (n * n) + value // 3
        alpha = tl.load(alpha_ptr)
        along = tl.load(place_ptr + pixel, mask=live, other=0.0) * alpha
        down = tl.load(place_ptr + tl.num_programs(1).to(tl.int64) * (n * n) + pixel, mask=live, other=0.0) * alpha
        row = y.to(tl.float64) + down.to(tl.float32).to(tl.float64)
        column = x.to(tl.float64) + along.to(tl.float32).to(tl.float64)
    top = tl.floor(row)
    left = tl.floor(column)
    fy = row - top
    fx = column - left
    y0 = _folded(top.to(tl.int32), n, AFFINE) * n
    y1 = _folded(top.to(tl.int32) + 1, n, AFFINE) * n
    x0 = _folded(left.to(tl.int32), n, AFFINE)
    x1 = _folded(left.to(tl.int32) + 1, n, AFFINE)
    image = x_ptr + first + c
    a = tl.load(image + (y0 + x0) * 3, mask=live, other=0.0).to(tl.float64)
    b = tl.load(image + (y1 + x0) * 3, mask=live, other=0.0).to(tl.float64)
    a += (tl.load(image + (y0 + x1) * 3, mask=live, other=0.0).to(tl.float64) - a) * fx
    b += (tl.load(image + (y1 + x1) * 3, mask=live, other=0.0).to(tl.float64) - b) * fx
    a = (a + (b - a) * fy).to(tl.float32)
    tl.store(out_ptr + first + value, a if AFFINE else _level(a), mask=live)


def warp(x: Tensor, matrix: Tensor) -> Tensor:
    """float32 [B,n,n,3] read at ``matrix`` (x, y, 1), float64 [B,2,3], folded about the edge pixels."""
    return _bilinear(x, matrix.contiguous(), matrix, torch.float32)


def displace(x: Tensor, shifts: Tensor, alpha: Tensor) -> Tensor:
    """Levels uint8 of float32 [B,n,n,3] read at ``alpha`` float64 [1] times ``shifts`` float64 [2 (x, y),B,n,n] from
    each place, folded about the edges."""
    return _bilinear(x, shifts.contiguous(), alpha, torch.uint8)


def _bilinear(x: Tensor, places: Tensor, alpha: Tensor, dtype: torch.dtype) -> Tensor:
    batch, n = x.shape[:2]
    out = torch.empty_like(x, dtype=dtype)
    bilinear_kernel[(triton.cdiv(n * n * 3, BLOCK), batch)](
        x, places, alpha, out, n, AFFINE=dtype == torch.float32, BLOCK=BLOCK, enable_fp_fusion=False
    )  # fmt: skip
    return out


@triton.jit
def glass_kernel(
    levels_ptr,  # uint8 [B,n,n,3]
    out_ptr,
    dx_ptr,  # int16 [B,passes,n,n]
    dy_ptr,
    n,
    reach,
    passes,
    BLOCK: tl.constexpr,
):
    """Each pixel walks back through the passes; within one it follows its chain to the pixel whose value it got."""
    value, live, y, x, _c, first = _block(n, 1, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    for k in range(passes):
        shifts = (image * passes + (passes - 1 - k)) * (n * n)
        here = live & (y > reach) & (y <= n - reach) & (x > reach) & (x <= n - reach)
        while tl.max(here.to(tl.int32), 0) > 0:
            dx = tl.load(dx_ptr + shifts + y * n + x, mask=here, other=0).to(tl.int32)
            dy = tl.load(dy_ptr + shifts + y * n + x, mask=here, other=0).to(tl.int32)
            dx = tl.minimum(tl.maximum(dx, -reach), reach - 1)  # whatever is given: no pixel outside the image is read
            dy = tl.minimum(tl.maximum(dy, -reach), reach - 1)
            y += dy
            x += dx
            written = (dy > 0) | ((dy == 0) & (dx > 0))
            here = here & written & (y > reach) & (y <= n - reach) & (x > reach) & (x <= n - reach)
    source = levels_ptr + first * 3 + (y * n + x) * 3
    target = out_ptr + first * 3 + value * 3
    for channel in tl.static_range(3):
        tl.store(target + channel, tl.load(source + channel, mask=live, other=0), mask=live)


def glass(levels: Tensor, dx: Tensor, dy: Tensor, reach: int) -> Tensor:
    """uint8 [B,n,n,3] after all passes of the glass shuffle with shifts ``dx``, ``dy`` int [B,passes,n,n]."""
    batch, n = levels.shape[:2]
    out = torch.empty_like(levels)
    grid = (triton.cdiv(n * n, BLOCK), batch)
    shifts = (dx.short().contiguous(), dy.short().contiguous())
    glass_kernel[grid](levels, out, *shifts, n, reach, dx.shape[1], BLOCK=BLOCK, enable_fp_fusion=False)
    return out
