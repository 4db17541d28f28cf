"""Pixels of a crop as Triton kernels read them: Pillow's antialiased bilinear filter, or the pixel itself.

Horizontal then vertical, in Pillow's integers: 22-bit weights, each pass rounded to a byte. Weights are computed in
float64, as in Pillow. In float32 they would be off by one unit, which changes sums that are halves of a level.
"""

from __future__ import annotations

from fastreg.kernels.dispatch import tl, triton


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
def source_levels(
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
