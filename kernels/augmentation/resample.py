"""The kernel that gathers: crops, resizing, and images whose rows are not a multiple of 8 pixels.

Bytes loaded per output pixel: 3 without resampling, 12 when enlarging (2 x 2 taps), 27 when shrinking by up to 1.5, and
about 12 s * s when shrinking by s; twice that with a partner, except in tiles that a pasted box does not reach.
Neighboring pixels share their taps in the cache, so device memory sees each input byte about once: 256 images of
256 x 256 to 224 x 224 in bf16 move 127 MB, 30 us at 4.3 TB/s (H200). Instructions are the limit. Per pixel, compiled
for sm_90, and per batch at one instruction per scheduler and clock (132 SMs, 1.755 GHz):

    taps                      2 x 2            3 x 3            2 x 2, blended    3 x 3, blended
    instructions (float64)    210 (52)         267 (59)         363 (97)          510 (112)
    batch                     91 us            116 us           157 us            221 us
    A100, H100                22 us more       26 us more       42 us more        49 us more

A100 and H100 run float64 at half the rate. Last measured: not yet measured.
"""

from __future__ import annotations

from fastreg.kernels.augmentation.filter import source_levels
from fastreg.kernels.augmentation.stream import partner_of
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.philox_triton import triton_normal, triton_operation, triton_words

ROWS, COLUMNS, WARPS = 16, 32, 4  # tile of a program; a thread has four pixels of one column, which share weights


@triton.jit
def _normal_at(seed, element, sample, step, OPERATION: tl.constexpr):
    """The normals of ``philox.field`` at ``element``, for elements in any order."""
    a, b, c, d = triton_words(seed, element // 4, sample, step, triton_operation(sample, OPERATION))
    second = (element & 2) != 0
    even, odd = triton_normal(tl.where(second, c, a), tl.where(second, d, b))
    return tl.where((element & 1) != 0, odd, even)


@triton.jit
def _field(element, base, normal, sample, seed, step, DRAW: tl.constexpr, OPERATION: tl.constexpr):
    if DRAW:
        field = _normal_at(seed, element, sample, step, OPERATION)
    else:
        field = tl.load(normal + base + element)
    return field


@triton.jit
def _noisy(value, sigma, element, base, normal, sample, seed, step, DRAW: tl.constexpr, OPERATION: tl.constexpr):
    """clip(value + 255 * sigma * normal, 0, 255)."""
    field = _field(element, base, normal, sample, seed, step, DRAW, OPERATION)
    return tl.minimum(tl.maximum(value + sigma * 255.0 * field, 0.0), 255.0)


@triton.jit
def _in_box(box, sample, y, x, top, left, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Which pixels of the tile are inside a sample's box, and whether the box reaches the tile."""
    y0 = tl.load(box + sample * 4)
    x0 = tl.load(box + sample * 4 + 1)
    y1 = tl.load(box + sample * 4 + 2)
    x1 = tl.load(box + sample * 4 + 3)
    inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
    return inside, (y0 < top + ROWS) & (y1 > top) & (x0 < left + COLUMNS) & (x1 > left)


@triton.jit
def _erased(
    value, inside, reached, sigma, element, base, normal, sample, seed, step, NOISE: tl.constexpr,
    DRAW: tl.constexpr, OPERATION: tl.constexpr,
):  # fmt: skip
    """A channel's normalized values, with sigma * normal inside the erased box."""
    fill = value * 0.0
    if NOISE:
        if reached & (sigma > 0):
            fill = sigma * _field(element, base, normal, sample, seed, step, DRAW, OPERATION)
    return tl.where(inside, fill, value)


@triton.jit(do_not_specialize=["seed", "step"])
def resample_kernel(
    out,
    images,
    crop,
    flip,
    noise,
    partner,
    lam,
    box,
    box_fill,
    erase,
    erase_noise,
    normal,
    indices,
    seed,
    step,
    s0,
    s1,
    s2,
    t0,
    t1,
    t2,
    B,
    H,
    W,
    h: tl.constexpr,
    w: tl.constexpr,
    CROP: tl.constexpr,
    RESIZE: tl.constexpr,
    FLIP: tl.constexpr,
    NOISE: tl.constexpr,
    DRAW: tl.constexpr,
    PARTNER: tl.constexpr,
    BLEND: tl.constexpr,
    BOX: tl.constexpr,
    FILL: tl.constexpr,
    ERASE: tl.constexpr,
    ERASE_NOISE: tl.constexpr,
    OPERATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The formula of ``stream_kernel`` on a tile of pixels of one sample."""
    b = tl.program_id(1).to(tl.int64)
    across = (w + COLUMNS - 1) // COLUMNS
    top = tl.program_id(0) // across * ROWS
    left = tl.program_id(0) % across * COLUMNS
    y = top + tl.arange(0, ROWS)[:, None]
    x = left + tl.arange(0, COLUMNS)[None, :]
    live = (y < h) & (x < w)
    y = tl.minimum(y, h - 1)
    x = tl.minimum(x, w - 1)
    H = tl.cast(H, tl.int32)
    W = tl.cast(W, tl.int32)
    N = h * w * 3
    p, weight, poison = partner_of(b, partner, lam, B, PARTNER, BLEND)
    own_x = x
    if FLIP:
        own_x = tl.where(tl.load(flip + b) != 0, w - 1 - x, x)
    own = source_levels(images, crop, b, y, own_x, H, W, h, w, CROP, RESIZE)
    poison += own[3]
    wanted = b >= 0  # whether this tile reads its partner
    inside = live
    fill = tl.cast(0, tl.int32)
    share = tl.cast(1.0, tl.float32)
    if BOX:
        inside, reached = _in_box(box, b, y, x, top, left, ROWS, COLUMNS)
        if FILL:
            fill = tl.load(box_fill + b).to(tl.int32)
            if not PARTNER:
                inside = inside & (fill != 0)  # nothing to paste
        share = tl.where(fill == 0, 1.0, tl.where(fill == 1, 1.0 - weight, 0.0))
        if not BLEND:
            wanted = (share > 0) & reached
    other = own
    if PARTNER:
        red = own[0] * 0.0
        green = red
        blue = red
        bad = poison
        if wanted:
            other_x = x
            if FLIP:
                other_x = tl.where(tl.load(flip + p) != 0, w - 1 - x, x)
            red, green, blue, bad = source_levels(images, crop, p, y, other_x, H, W, h, w, CROP, RESIZE)
        other = red, green, blue
        poison += bad
    own_sigma = 0.0
    other_sigma = 0.0
    own_index = b
    other_index = p
    if NOISE:
        own_sigma = tl.load(noise + b)
        other_sigma = tl.where(wanted, tl.load(noise + p), 0.0)
    if DRAW:
        own_index = tl.load(indices + b)
        other_index = tl.load(indices + p)
    if ERASE:
        own_erased, own_reached = _in_box(erase, b, y, x, top, left, ROWS, COLUMNS)
        other_erased, other_reached = _in_box(erase, p, y, x, top, left, ROWS, COLUMNS)
        own_fill = 0.0
        other_fill = 0.0
        if ERASE_NOISE:
            own_fill = tl.load(erase_noise + b)
            other_fill = tl.where(wanted, tl.load(erase_noise + p), 0.0)
    for c in tl.static_range(3):
        scale = s0 if c == 0 else (s1 if c == 1 else s2)
        bias = (t0 if c == 0 else (t1 if c == 1 else t2)) + poison
        if ERASE:  # own and partner are normalized first, then erased
            std_scale = scale
            mean_bias = t0 if c == 0 else (t1 if c == 1 else t2)
            scale = 1.0
            bias = poison
        element = (y * w + x) * 3 + c
        value = own[c]
        if NOISE:
            if own_sigma > 0:
                value = _noisy(value, own_sigma, element, b * N, normal, own_index, seed, step, DRAW, OPERATION)
        if ERASE:
            value = _erased(
                value * std_scale + mean_bias, own_erased, own_reached, own_fill, element, b * N, normal, own_index,
                seed, step, ERASE_NOISE, DRAW, OPERATION,
            )  # fmt: skip
        result = value * (scale * weight) + bias
        replaced = tl.where(fill == 2, 0.0, bias)
        if ERASE:
            replaced = tl.where(fill == 1, mean_bias * weight + bias, replaced)
        if PARTNER:
            value = other[c]
            if NOISE:
                if other_sigma > 0:
                    value = _noisy(value, other_sigma, element, p * N, normal, other_index, seed, step, DRAW, OPERATION)
            if ERASE:
                value = _erased(
                    value * std_scale + mean_bias, other_erased, other_reached, other_fill, element, p * N, normal,
                    other_index, seed, step, ERASE_NOISE, DRAW, OPERATION,
                )  # fmt: skip
            if BLEND:
                result = value * (scale * (1.0 - weight)) + result
            replaced = value * (scale * share) + replaced
        if BOX:
            result = tl.where(inside, replaced, result)
        tl.store(out + b * N + element, result.to(out.dtype.element_ty), mask=live)
