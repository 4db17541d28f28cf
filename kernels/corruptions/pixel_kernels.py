"""Kernels of one pixel at a time: levels to numbers and back, HSV, contrast, frost.

Each repeats the float64 arithmetic of the plain version operation for operation. Constants come as float64 tensors:
Triton would pass a Python number as float32. Quotients are correctly rounded (torch on CUDA multiplies by the
reciprocal of a Python number, which is another number in the last bit, and truncation makes a level of it).

Bytes per value (a pixel has three): unit 1 + 4 or 8, quantise 4 or 8 + 1, hsv 2, contrast 3 (read for the sum, read
again, written), frost 3. Limit at 4.8 TB/s, 256 x 224 x 224 x 3: 16 us for hsv, 24 us for contrast and frost; hsv's
three divisions, about 300 instructions a pixel, bound it earlier. Speed on a GPU: not yet measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.dispatch import tl, triton

BLOCK = 1024
PIXELS = 512  # per program, where a thread keeps three channels in registers


@triton.jit
def _unit(level):
    """float64: the correctly rounded level / 255 without a division, as 1 / 255 = 257 / 65536 (1 + 1 / 65535)."""
    x = (level.to(tl.int32) * 257).to(tl.float64) * 1.52587890625e-05
    return x + x * 1.5259021896696422e-05


@triton.jit
def _level(x):
    """Numbers on the 0-1 scale to uint8: clip, times 255, truncate."""
    return (tl.minimum(tl.maximum(x, 0.0), 1.0) * 255.0).to(tl.int32).to(tl.uint8)


@triton.jit
def unit_kernel(images_ptr, out_ptr, count, BLOCK: tl.constexpr):
    value = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    level = tl.load(images_ptr + value, mask=value < count, other=0)
    if out_ptr.dtype.element_ty == tl.float64:
        x = _unit(level)
    else:
        x = tl.math.div_rn(level.to(tl.float32), 255.0)
    tl.store(out_ptr + value, x, mask=value < count)


def unit(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 levels as float32 or float64 numbers in [0,1]: the correctly rounded level / 255."""
    images = images.contiguous()
    out = torch.empty_like(images, dtype=dtype)
    count = images.numel()
    unit_kernel[(triton.cdiv(count, BLOCK),)](images, out, count, BLOCK=BLOCK, enable_fp_fusion=False)
    return out


@triton.jit
def quantise_kernel(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    value = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + value, mask=value < count, other=0.0)
    tl.store(out_ptr + value, _level(x), mask=value < count)


def quantise(x: Tensor) -> Tensor:
    """float32 or float64 numbers on the 0-1 scale to uint8."""
    x = x.contiguous()
    out = torch.empty_like(x, dtype=torch.uint8)
    quantise_kernel[(triton.cdiv(x.numel(), BLOCK),)](x, out, x.numel(), BLOCK=BLOCK, enable_fp_fusion=False)
    return out


@triton.jit
def hsv_kernel(images_ptr, out_ptr, change_ptr, pixels, BLOCK: tl.constexpr):
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < pixels
    r = _unit(tl.load(images_ptr + pixel * 3, mask=live, other=0))
    g = _unit(tl.load(images_ptr + pixel * 3 + 1, mask=live, other=0))
    b = _unit(tl.load(images_ptr + pixel * 3 + 2, mask=live, other=0))
    v = tl.maximum(tl.maximum(r, g), b)
    delta = v - tl.minimum(tl.minimum(r, g), b)
    grey = delta == 0.0
    s = tl.where(grey, 0.0, delta / tl.where(grey, 1.0, v))
    part = tl.where(b == v, r - g, tl.where(g == v, b - r, g - b)) / tl.where(grey, 1.0, delta)
    hue = (part + tl.where(b == v, 4.0, tl.where(g == v, 2.0, 0.0)).to(tl.float64)) / 6.0
    hue = tl.where(grey, 0.0, tl.where(hue < 0.0, hue + 1.0, hue)) * 6.0

    s = tl.minimum(tl.maximum(s * tl.load(change_ptr) + tl.load(change_ptr + 1), 0.0), 1.0)
    v = tl.minimum(tl.maximum(v + tl.load(change_ptr + 2), 0.0), 1.0)
    sector = tl.floor(hue)
    f = hue - sector
    sector = sector.to(tl.int32) % 6
    f = tl.where(sector % 2 == 0, 1.0 - f, f)
    most = _level(v)
    least = _level(v * (1.0 - s))
    mid = _level(v * (1.0 - f * s))
    # the sectors in which a channel is the largest, the second
    r = tl.where((sector == 0) | (sector == 5), most, tl.where((sector == 1) | (sector == 4), mid, least))
    g = tl.where((sector == 1) | (sector == 2), most, tl.where((sector == 0) | (sector == 3), mid, least))
    b = tl.where((sector == 3) | (sector == 4), most, tl.where((sector == 2) | (sector == 5), mid, least))
    tl.store(out_ptr + pixel * 3, r, mask=live)
    tl.store(out_ptr + pixel * 3 + 1, g, mask=live)
    tl.store(out_ptr + pixel * 3 + 2, b, mask=live)


def hsv(images: Tensor, change: Tensor) -> Tensor:
    """uint8 [B,n,n,3] with S * change[0] + change[1] and V + change[2], ``change`` float64 [3] on the device."""
    out = torch.empty_like(images)
    pixels = images.numel() // 3
    hsv_kernel[(triton.cdiv(pixels, PIXELS),)](images, out, change, pixels, BLOCK=PIXELS, enable_fp_fusion=False)
    return out


@triton.jit
def sum_kernel(images_ptr, sums_ptr, pixels, BLOCK: tl.constexpr):
    """``sums``, int32 [B,3,programs]: the levels of this program's pixels, added up."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    for c in tl.static_range(3):
        level = tl.load(images_ptr + (image * pixels + pixel) * 3 + c, mask=pixel < pixels, other=0)
        place = (image * 3 + c) * tl.num_programs(0) + tl.program_id(0)
        tl.store(sums_ptr + place, tl.sum(level.to(tl.int32), 0))


@triton.jit
def contrast_kernel(images_ptr, out_ptr, sums_ptr, factor_ptr, pixels, parts, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    factor = tl.load(factor_ptr)
    part = tl.arange(0, PARTS)
    for c in tl.static_range(3):
        total = tl.load(sums_ptr + (image * 3 + c) * parts + part, mask=part < parts, other=0).to(tl.int64)
        mean = tl.sum(total, 0).to(tl.float64) / (tl.cast(pixels, tl.float64) * 255.0)
        place = (image * pixels + pixel) * 3 + c
        x = _unit(tl.load(images_ptr + place, mask=pixel < pixels, other=0))
        tl.store(out_ptr + place, _level((x - mean) * factor + mean), mask=pixel < pixels)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """uint8 [B,n,n,3] drawn towards each image's and channel's mean; ``factor`` float64 [1] on the device."""
    batch, n = images.shape[:2]
    parts = triton.cdiv(n * n, PIXELS)
    sums = torch.empty((batch, 3, parts), dtype=torch.int32, device=images.device)
    out = torch.empty_like(images)
    sum_kernel[(parts, batch)](images, sums, n * n, BLOCK=PIXELS, enable_fp_fusion=False)
    contrast_kernel[(parts, batch)](
        images, out, sums, factor, n * n, parts,
        PARTS=triton.next_power_of_2(parts), BLOCK=PIXELS, enable_fp_fusion=False,
    )  # fmt: skip
    return out


@triton.jit
def frost_kernel(
    images_ptr,  # uint8 [B,n,n,3]
    out_ptr,
    pixels_ptr,  # uint8 [pixels,3]: the photographs, one behind the other
    first_ptr,  # int64 [B]: the crop's first pixel
    stride_ptr,  # int64 [B]: pixels in a row of its photograph
    weights_ptr,  # float64 [2]
    n,
    BLOCK: tl.constexpr,
):
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    live = value < n * n * 3
    y = value // (n * 3)
    place = (tl.load(first_ptr + image) + y * tl.load(stride_ptr + image)) * 3 + value % (n * 3)
    level = tl.load(images_ptr + image * (n * n * 3) + value, mask=live, other=0).to(tl.float64)
    frost = tl.load(pixels_ptr + place, mask=live, other=0).to(tl.float64)
    x = level * tl.load(weights_ptr) + frost * tl.load(weights_ptr + 1)
    x = tl.minimum(tl.maximum(x, 0.0), 255.0).to(tl.int32).to(tl.uint8)
    tl.store(out_ptr + image * (n * n * 3) + value, x, mask=live)


def frost(images: Tensor, pixels: Tensor, first: Tensor, stride: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of uint8 [B,n,n,3] and the n x n crops of ``pixels`` uint8 [P,3] that begin at pixel ``first`` and
    whose rows lie ``stride`` pixels apart, int64 [B]; ``weights`` float64 [2] of image and photograph."""
    batch, n = images.shape[:2]
    out = torch.empty_like(images)
    grid = (triton.cdiv(n * n * 3, BLOCK), batch)
    frost_kernel[grid](images, out, pixels, first, stride, weights, n, BLOCK=BLOCK, enable_fp_fusion=False)
    return out
