# Tuples grow while a kernel is unrolled, which Python types cannot follow.
# mypy: disable-error-code="assignment, misc"
"""The second kernel of a slot: every pixel by its sample's table or coefficients, and the launcher of both kernels.

    table       v -> table[channel, v]
    Color       blend of v and the pixel's gray level
    Sharpness   blend of v and the 3 x 3 mean with weight 5 in the middle, inside the outermost pixels
    geometric   nearest: the pixel at (x_in, y_in); bilinear and bicubic: Pillow's interpolation in float64

Bytes per element: 2 (read, written). Limit at 4.3 TB/s (H200), 256 x 224 x 224 x 3: 18 us a slot. Last measured: not
yet measured. A program takes neighboring pixels of a sample. Table operations read and write them as words; the others
load the bytes of each pixel: 3, 30 for Sharpness, 12 for bilinear, 48 for bicubic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.auto_augmentation.operations import COLOR, ROTATE, SHARPNESS, SHEAR_X
from fastreg.kernels.auto_augmentation.prepare import BLOCK, blend, factor, gray, load_operation, prepare_kernel
from fastreg.kernels.dispatch import cdiv, tl, triton

PIXELS = (512, 256, 256, 256)  # of a program, by mode: float64 takes registers
MAX_SIDE = 16384  # above, coordinates leave Pillow's fixed point


@triton.jit
def _by_table(out, image, table, first, size, PIXELS: tl.constexpr):
    for k in tl.static_range(3):
        element = first * 3 + k * PIXELS + tl.arange(0, PIXELS)
        level = tl.load(image + element, mask=element < size, other=0).to(tl.int32)
        tl.store(out + element, tl.load(table + (element % 3) * 256 + level), mask=element < size)


@triton.jit
def _load(image, pixel, inside):
    """Red, green and blue of pixels, int32."""
    red = tl.load(image + pixel * 3, mask=inside, other=0).to(tl.int32)
    green = tl.load(image + pixel * 3 + 1, mask=inside, other=0).to(tl.int32)
    blue = tl.load(image + pixel * 3 + 2, mask=inside, other=0).to(tl.int32)
    return red, green, blue


@triton.jit
def _store(out, pixel, inside, red, green, blue):
    tl.store(out + pixel * 3, red.to(tl.uint8), mask=inside)
    tl.store(out + pixel * 3 + 1, green.to(tl.uint8), mask=inside)
    tl.store(out + pixel * 3 + 2, blue.to(tl.uint8), mask=inside)


@triton.jit
def _color(out, image, pixel, inside, m):
    red, green, blue = _load(image, pixel, inside)
    shade = gray(red, green, blue)
    f = factor(m)
    _store(out, pixel, inside, blend(shade, red, f), blend(shade, green, f), blend(shade, blue, f))


@triton.jit
def _sharpness(out, image, pixel, inside, x, y, H, W, m):
    """S / 13 + 1/2 is never a whole number, so that Pillow's float32 sum is (2 S + 13) // 26."""
    red, green, blue = _load(image, pixel, inside)
    inner = inside & (x > 0) & (x < W - 1) & (y > 0) & (y < H - 1)
    sums = red * 4, green * 4, blue * 4
    for k in tl.static_range(9):
        tap = _load(image, pixel + (k // 3 - 1) * W + (k % 3 - 1), inner)
        sums = sums[0] + tap[0], sums[1] + tap[1], sums[2] + tap[2]
    f = factor(m)
    red = blend(tl.where(inner, (2 * sums[0] + 13) // 26, red), red, f)
    green = blend(tl.where(inner, (2 * sums[1] + 13) // 26, green), green, f)
    blue = blend(tl.where(inner, (2 * sums[2] + 13) // 26, blue), blue, f)
    _store(out, pixel, inside, red, green, blue)


@triton.jit
def _nearest(out, image, matrix, pixel, inside, x, y, H, W, r, g, b):
    bits = tl.load(matrix + 6).to(tl.int64)
    x = x.to(tl.int64)
    y = y.to(tl.int64)
    a1 = tl.load(matrix + 1).to(tl.int64)
    a4 = tl.load(matrix + 4).to(tl.int64)
    column = (tl.load(matrix).to(tl.int64) * x + (a1 * y + tl.load(matrix + 2).to(tl.int64))) >> bits
    row = (tl.load(matrix + 3).to(tl.int64) * x + (a4 * y + tl.load(matrix + 5).to(tl.int64))) >> bits
    found = inside & (column >= 0) & (column < W) & (row >= 0) & (row < H)
    red, green, blue = _load(image, (row * W + column).to(tl.int32), found)
    red = tl.where(found, red, r)
    _store(out, pixel, inside, red, tl.where(found, green, g), tl.where(found, blue, b))


@triton.jit
def _cubic(v0, v1, v2, v3, d):
    """Pillow's cubic through float64 values, in its order of operations."""
    p2 = -v0 + v2
    p3 = 2.0 * (v0 - v1) + v2 - v3
    p4 = -v0 + v1 - v2 + v3
    return v1 + d * (p2 + d * (p3 + d * p4))


@triton.jit
def _between(image, column, row, found, dx, dy, H, W, c: tl.constexpr, CUBIC: tl.constexpr):
    """One channel between pixels, float64. Rows and columns outside the image repeat its border."""
    lines = ()
    for j in tl.static_range(4 if CUBIC else 2):
        line = tl.minimum(tl.maximum(row + j, 0), H - 1) * W
        taps = ()
        for i in tl.static_range(4 if CUBIC else 2):
            at = line + tl.minimum(tl.maximum(column + i, 0), W - 1)
            taps = taps + (tl.load(image + at * 3 + c, mask=found, other=0).to(tl.int32).to(tl.float64),)
        if CUBIC:
            lines = lines + (_cubic(taps[0], taps[1], taps[2], taps[3], dx),)
        else:
            lines = lines + (taps[0] + (taps[1] - taps[0]) * dx,)
    if CUBIC:
        return _cubic(lines[0], lines[1], lines[2], lines[3], dy)
    else:
        return lines[0] + (lines[1] - lines[0]) * dy


@triton.jit
def _interpolated(out, image, matrix, pixel, inside, x, y, H, W, r, g, b, CUBIC: tl.constexpr):
    x = x.to(tl.float64) + 0.5
    y = y.to(tl.float64) + 0.5
    x_in = tl.load(matrix) * x + tl.load(matrix + 1) * y + tl.load(matrix + 2)
    y_in = tl.load(matrix + 3) * x + tl.load(matrix + 4) * y + tl.load(matrix + 5)
    found = inside & (x_in >= 0.0) & (x_in < W.to(tl.float64)) & (y_in >= 0.0) & (y_in < H.to(tl.float64))
    x_in = tl.where(found, x_in, 0.5) - 0.5
    y_in = tl.where(found, y_in, 0.5) - 0.5
    left = tl.floor(x_in)
    top = tl.floor(y_in)
    dx = x_in - left
    dy = y_in - top
    column = left.to(tl.int32) - (1 if CUBIC else 0)
    row = top.to(tl.int32) - (1 if CUBIC else 0)
    for c in tl.static_range(3):
        value = _between(image, column, row, found, dx, dy, H, W, c, CUBIC)
        level = tl.minimum(tl.maximum(value, 0.0), 255.0).to(tl.int32)
        level = tl.where(found, level, r if c == 0 else (g if c == 1 else b))
        tl.store(out + pixel * 3 + c, level.to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=["slot", "slots", "tiles", "red", "green", "blue"])
def apply_kernel(
    out,  # uint8 [B,H,W,3]
    images,  # uint8 [B,H,W,3]
    tables,  # uint8 [B,3,256]
    matrices,  # float64 [B,8]
    operations,  # int64 [B,slots]
    magnitudes,  # float32 [B,slots]
    modes,  # int8 or int64 [B,slots] where MODE is 3
    slot,
    slots,
    tiles,  # programs per sample
    size,  # bytes of an image
    H,
    W,
    red,  # fill
    green,
    blue,
    MODE: tl.constexpr,
    PIXELS: tl.constexpr,
):
    b = (tl.program_id(0) // tiles).to(tl.int64)
    first = tl.program_id(0) % tiles * PIXELS
    operation, m, mode = load_operation(operations, magnitudes, modes, b * slots + slot, MODE)
    H = tl.cast(H, tl.int32)
    W = tl.cast(W, tl.int32)
    image = images + b * size
    target = out + b * size
    matrix = matrices + b * 8
    pixel = first + tl.arange(0, PIXELS)
    inside = pixel < H * W
    y = pixel // W
    x = pixel % W
    if (operation >= SHEAR_X) & (operation <= ROTATE):
        if mode == 0:
            if (MODE == 0) | (MODE == 3):
                _nearest(target, image, matrix, pixel, inside, x, y, H, W, red, green, blue)
        elif mode == 1:
            if (MODE == 1) | (MODE == 3):
                _interpolated(target, image, matrix, pixel, inside, x, y, H, W, red, green, blue, False)
        elif (MODE == 2) | (MODE == 3):
            _interpolated(target, image, matrix, pixel, inside, x, y, H, W, red, green, blue, True)
    elif operation == COLOR:
        _color(target, image, pixel, inside, m)
    elif operation == SHARPNESS:
        _sharpness(target, image, pixel, inside, x, y, H, W, m)
    else:
        _by_table(target, image, tables + b * 768, first, size, PIXELS)


def supports(images: Tensor) -> bool:
    """Whether sides stay in Pillow's fixed point and the programs fit a grid."""
    B, H, W, _ = images.shape
    return max(H, W) <= MAX_SIDE and B * cdiv(H * W, min(PIXELS)) < 2**31


def auto_augment_triton(
    images: Tensor, operations: Tensor, magnitudes: Tensor, mode: int, modes: Tensor | None, fill: list[int]
) -> Tensor:
    """``auto_augment`` on checked contiguous arguments with B and K of 1 or more: two launches per slot."""
    B, H, W, _ = images.shape
    slots = operations.shape[1]
    tables = torch.empty((B, 3, 256), dtype=torch.uint8, device=images.device)
    matrices = torch.empty((B, 8), dtype=torch.float64, device=images.device)
    choice = mode if modes is None else 3
    tiles = cdiv(H * W, PIXELS[choice])
    for slot in range(slots):
        prepare_kernel[(3 * B,)](
            tables, matrices, images, operations, magnitudes, modes, slot, slots, H, W,
            MODE=choice, BLOCK=BLOCK, num_warps=8, enable_fp_fusion=False,
        )  # fmt: skip
        out = torch.empty_like(images)
        apply_kernel[(B * tiles,)](
            out, images, tables, matrices, operations, magnitudes, modes, slot, slots, tiles, H * W * 3, H, W, *fill,
            MODE=choice, PIXELS=PIXELS[choice], num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
        images = out
    return images
