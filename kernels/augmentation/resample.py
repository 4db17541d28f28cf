"""The kernel that gathers: crops, resizing, and images whose rows are not a multiple of 8 pixels.

The filter is Pillow's antialiased bilinear, horizontal then vertical, in Pillow's integers: 22-bit weights, each pass
rounded to a byte. Weights are computed in float64, as in Pillow. In float32 they would be off by one unit, which
changes sums that are halves of a level.

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

from fastreg.kernels.augmentation.stream import partner_of
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.philox import triton_normal, triton_operation, triton_words

ROWS, COLUMNS, WARPS = 16, 32, 4  # tile of a program; a thread has four pixels of one column, which share weights


@triton.jit
def _normal_at(seed, element, sample, step, OPERATION: tl.constexpr):
    """The normals of ``philox.field`` at ``element``, for elements in any order."""
    a, b, c, d = triton_words(seed, element // 4, sample, step, triton_operation(sample, OPERATION))
    second = (element & 2) != 0
    even, odd = triton_normal(tl.where(second, c, a), tl.where(second, d, b))
    return tl.where((element & 1) != 0, odd, even)


@triton.jit
def _axis(position, start, length, out: tl.constexpr):
    """One axis of a crop, as a tuple: the filter's first pixel at each output position (int32); that pixel's middle
    minus the filter's center (float64); 1 / reach (float64); the crop's pixels low and high, [low, high) (int32)."""
    scale = length * (1.0 / out)
    reach = tl.maximum(scale, 1.0)
    center = start + (position.to(tl.float64) + 0.5) * scale
    first = tl.floor(center - reach + 0.5)
    low = tl.floor(start).to(tl.int32)
    return first.to(tl.int32), first + 0.5 - center, 1.0 / reach, low, tl.ceil(start + length).to(tl.int32)


@triton.jit
def _taps(length, out: tl.constexpr):
    """Number of pixels that a filter may reach. A reach of less than 1e-9 of a pixel has no weight."""
    return tl.ceil(2.0 * tl.maximum(length * (1.0 / out), 1.0) - 1e-9).to(tl.int32)


@triton.jit
def _inside(axis, low, high, taps):
    """The first of ``taps`` pixels that cover the filter's share of [low, high)."""
    return tl.maximum(tl.minimum(axis[0], high - taps), low)


@triton.jit
def _unit(axis, first, taps, WHOLE: tl.constexpr):
    """The factor that scales the weights of the crop's pixels, also outside the image, to a sum of 2 ** 22. WHOLE: the
    crop holds all ``taps`` pixels."""
    away = axis[1] + (first - axis[0]).to(tl.float64)
    total = axis[1] * 0.0
    for i in range(taps):
        weight = tl.maximum(1.0 - tl.abs(away + i) * axis[2], 0.0)
        if WHOLE:
            total += weight
        else:
            total += tl.where((first + i >= axis[3]) & (first + i < axis[4]), weight, 0.0)
    return 4194304.0 / total


@triton.jit
def _weight(away, slope, unit):
    """The triangle filter, 1 - |away| / reach, in units of 2 ** -22, rounded. ``slope`` is ``unit`` / reach."""
    return tl.maximum((unit + 0.5 - tl.abs(away) * slope).to(tl.int32), 0)


@triton.jit
def _filtered(image, W, rows, y, unit_y, taps_y, columns, x, unit_x, taps_x):
    """Red, green and blue of rows ([ROWS, 1]) by columns ([1, COLUMNS]); y and x are the first pixels, inside the
    image. Constant numbers of taps unroll the loops, and terms that do not depend on the row leave the inner loop."""
    half = tl.full([y.shape[0], x.shape[1]], 1 << 21, tl.int32)
    red = half
    green = half
    blue = half
    at = image + (y * (W * 3) + x * 3)
    away_y = rows[1] + (y - rows[0]).to(tl.float64)
    away_x = columns[1] + (x - columns[0]).to(tl.float64)
    slope_y = rows[2] * unit_y
    slope_x = columns[2] * unit_x
    for i in range(taps_y):
        down = _weight(away_y + i, slope_y, unit_y)
        r = half
        g = half
        b = half
        for j in range(taps_x):
            across = _weight(away_x + j, slope_x, unit_x)
            r += across * tl.load(at + j * 3).to(tl.int32)
            g += across * tl.load(at + (j * 3 + 1)).to(tl.int32)
            b += across * tl.load(at + (j * 3 + 2)).to(tl.int32)
        at += W * 3
        red += down * (r >> 22)
        green += down * (g >> 22)
        blue += down * (b >> 22)
    return (red >> 22).to(tl.float32), (green >> 22).to(tl.float32), (blue >> 22).to(tl.float32)


@triton.jit
def _few(image, W, rows, columns, TAPS: tl.constexpr):
    """``_filtered`` by TAPS x TAPS pixels, for crops inside the image."""
    y = _inside(rows, rows[3], rows[4], TAPS)
    x = _inside(columns, columns[3], columns[4], TAPS)
    unit_y = _unit(rows, y, TAPS, True)
    unit_x = _unit(columns, x, TAPS, True)
    return _filtered(image, W, rows, y, unit_y, TAPS, columns, x, unit_x, TAPS)


@triton.jit
def _many(image, H, W, rows, most_y, columns, most_x):
    """``_filtered`` for any crop: pixels outside the image are black, and count in the sum of the weights."""
    unit_y = _unit(rows, rows[0], most_y, False)
    unit_x = _unit(columns, columns[0], most_x, False)
    low_y = tl.maximum(rows[3], 0)
    low_x = tl.maximum(columns[3], 0)
    high_y = tl.minimum(rows[4], H)
    high_x = tl.minimum(columns[4], W)
    taps_y = tl.minimum(most_y, high_y - low_y)
    taps_x = tl.minimum(most_x, high_x - low_x)
    y = _inside(rows, low_y, high_y, taps_y)
    x = _inside(columns, low_x, high_x, taps_x)
    return _filtered(image, W, rows, y, unit_y, taps_y, columns, x, unit_x, taps_x)


@triton.jit
def _source(
    images, crop, sample, y, x, H, W, h: tl.constexpr, w: tl.constexpr, CROP: tl.constexpr, RESIZE: tl.constexpr
):
    """Red, green and blue, 0 to 255, of the output pixels (y, x) of ``sample``, not flipped; and a poison: NaN if its
    crop is not positive and finite, else 0."""
    image = images + sample * H * W * 3
    poison = tl.cast(0.0, tl.float32)
    if RESIZE:
        top = 0.0
        left = 0.0
        height = H.to(tl.float32)
        width = W.to(tl.float32)
        if CROP:
            top = tl.load(crop + sample * 4)
            left = tl.load(crop + sample * 4 + 1)
            height = tl.load(crop + sample * 4 + 2)
            width = tl.load(crop + sample * 4 + 3)
            good = (height > 0) & (width > 0) & (height + width + tl.abs(top) + tl.abs(left) < 1e6)
            poison = tl.where(good, 0.0, float("nan"))
            height = tl.where(good, height, 1.0)  # an infinite crop would loop forever
            width = tl.where(good, width, 1.0)
        top = tl.cast(top, tl.float64)
        left = tl.cast(left, tl.float64)
        height = height.to(tl.float64)
        width = width.to(tl.float64)
        rows = _axis(y, top, height, h)
        columns = _axis(x, left, width, w)
        most_y = _taps(height, h)
        most_x = _taps(width, w)
        whole = (top >= 0) & (left >= 0) & (top + height <= H) & (left + width <= W)
        room = tl.minimum(rows[4] - rows[3], columns[4] - columns[3])
        taps = tl.where(whole & (room >= 3), tl.maximum(most_y, most_x), 4)
        # the whole sample takes one branch: threads do not diverge
        if taps <= 2:
            r, g, b = _few(image, W, rows, columns, 2)
        elif taps == 3:
            r, g, b = _few(image, W, rows, columns, 3)
        else:
            r, g, b = _many(image, H, W, rows, most_y, columns, most_x)
        return r, g, b, poison
    else:
        at = image + (y * W + x) * 3
        red = tl.load(at).to(tl.int32).to(tl.float32)
        green = tl.load(at + 1).to(tl.int32).to(tl.float32)
        blue = tl.load(at + 2).to(tl.int32).to(tl.float32)
        return red, green, blue, poison


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
    own = _source(images, crop, b, y, own_x, H, W, h, w, CROP, RESIZE)
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
            red, green, blue, bad = _source(images, crop, p, y, other_x, H, W, h, w, CROP, RESIZE)
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
