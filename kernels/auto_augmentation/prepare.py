"""The first kernel of a slot: each sample's table of levels, or its coefficients (``matrix.py``).

Operations that map a level by itself become a table [3, 256]. AutoContrast and Equalize need the histogram of a channel
for it, Contrast the mean gray value:

    AutoContrast   v -> (v - lo) 255 / (hi - lo), in float64, truncated and clipped
    Equalize       v -> (step / 2 + number of pixels below v) / step,  step = (pixels - pixels of the top level) / 255
    Contrast       blend of v and the rounded mean of gray = (19595 red + 38470 green + 7471 blue + 2^15) / 2^16

A program makes the table of one channel. Bytes per element: 1 where the image is read, else 0. Last measured: not yet
measured.
"""

from __future__ import annotations

from fastreg.kernels.auto_augmentation.matrix import store_matrix
from fastreg.kernels.auto_augmentation.operations import (
    AUTO_CONTRAST,
    BRIGHTNESS,
    COLOR,
    CONTRAST,
    EQUALIZE,
    INVERT,
    POSTERIZE,
    ROTATE,
    SHARPNESS,
    SHEAR_X,
    SOLARIZE,
    SOLARIZE_ADD,
)
from fastreg.kernels.dispatch import tl, triton

BLOCK = 2048  # pixels of an image that a program reads at once


@triton.jit
def load_operation(operations, magnitudes, modes, at, MODE: tl.constexpr):
    """Operation, magnitude and interpolation of one sample; Identity where the interpolation is out of range."""
    operation = tl.load(operations + at)
    mode = operation * 0 + MODE
    if MODE == 3:
        mode = tl.load(modes + at).to(tl.int64)
        operation = tl.where((mode < 0) | (mode > 2), 0, operation)
    return operation, tl.load(magnitudes + at), mode


@triton.jit
def gray(red, green, blue):
    """Pillow's gray level of int32 levels."""
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


@triton.jit
def factor(magnitude):
    """1 + m as Pillow gets it: Python's sum, then float32."""
    return (magnitude.to(tl.float64) + 1.0).to(tl.float32)


@triton.jit
def blend(degenerate, level, factor):
    """Pillow's blend of int32 levels in float32, clipped and truncated."""
    mixed = degenerate.to(tl.float32) + factor * (level - degenerate).to(tl.float32)
    return tl.minimum(tl.maximum(mixed, 0.0), 255.0).to(tl.int32)


@triton.jit
def _gray_mean(image, pixels, BLOCK: tl.constexpr):
    """int(mean + 1/2)."""
    total = tl.zeros([BLOCK], tl.int32)
    for start in range(0, pixels, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        inside = pixel < pixels
        red = tl.load(image + pixel * 3, mask=inside, other=0).to(tl.int32)
        green = tl.load(image + pixel * 3 + 1, mask=inside, other=0).to(tl.int32)
        blue = tl.load(image + pixel * 3 + 2, mask=inside, other=0).to(tl.int32)
        total += gray(red, green, blue)
    return ((2 * tl.sum(total.to(tl.int64), 0) + pixels) // (2 * pixels.to(tl.int64))).to(tl.int32)


@triton.jit
def _histogram(channel, pixels, BLOCK: tl.constexpr):
    """Number of pixels of each level in one channel, int32 [256]."""
    counts = tl.zeros([256], tl.int32)
    for start in range(0, pixels, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        level = tl.load(channel + pixel * 3, mask=pixel < pixels, other=0).to(tl.int32)
        counts += tl.histogram(level, 256, mask=pixel < pixels)
    return counts


@triton.jit
def _stretched(counts, level, operation, pixels):
    """The table of AutoContrast or Equalize."""
    present = counts > 0
    low = tl.min(tl.where(present, level, 255), 0)
    high = tl.max(tl.where(present, level, 0), 0)
    result = level
    if high > low:
        if operation == AUTO_CONTRAST:
            scale = 255.0 / (high - low).to(tl.float64)
            stretched = level.to(tl.float64) * scale + -low.to(tl.float64) * scale
            result = tl.minimum(tl.maximum(stretched, 0.0), 255.0).to(tl.int32)
        else:
            step = (pixels - tl.sum(tl.where(level == high, counts, 0), 0)) // 255
            if step > 0:
                below = tl.cumsum(counts, 0) - counts
                result = tl.minimum((step // 2 + below) // step, 255)
    return result


@triton.jit(do_not_specialize=["slot", "slots"])
def prepare_kernel(
    tables,  # uint8 [B,3,256]
    matrices,  # float64 [B,8]
    images,  # uint8 [B,H,W,3]
    operations,  # int64 [B,slots]
    magnitudes,  # float32 [B,slots]
    modes,  # int8 or int64 [B,slots] where MODE is 3
    slot,
    slots,
    H,
    W,
    MODE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    b = (tl.program_id(0) // 3).to(tl.int64)
    channel = tl.program_id(0) % 3
    operation, m, mode = load_operation(operations, magnitudes, modes, b * slots + slot, MODE)
    H = tl.cast(H, tl.int32)
    W = tl.cast(W, tl.int32)
    if (operation >= SHEAR_X) & (operation <= ROTATE):
        if channel == 0:
            store_matrix(matrices + b * 8, operation, m, mode == 0, H, W)
    elif (operation != COLOR) & (operation != SHARPNESS):
        pixels = H * W
        image = images + b * (pixels * 3)
        level = tl.arange(0, 256)
        result = level
        if operation == BRIGHTNESS:
            result = blend(level * 0, level, factor(m))
        elif operation == CONTRAST:
            result = blend(level * 0 + _gray_mean(image, pixels, BLOCK), level, factor(m))
        elif operation == POSTERIZE:
            result = level & ~(255 >> tl.minimum(tl.maximum(m, 0.0), 8.0).to(tl.int32))
        elif operation == SOLARIZE:
            result = tl.where(level.to(tl.float32) >= m, 255 - level, level)
        elif (operation == AUTO_CONTRAST) | (operation == EQUALIZE):
            result = _stretched(_histogram(image + channel, pixels, BLOCK), level, operation, pixels)
        elif operation == INVERT:
            result = 255 - level
        elif operation == SOLARIZE_ADD:
            added = level + tl.minimum(tl.maximum(m, -256.0), 256.0).to(tl.int32)
            result = tl.where(level < 128, tl.minimum(tl.maximum(added, 0), 255), level)
        tl.store(tables + b * 768 + channel * 256 + level, result.to(tl.uint8))
