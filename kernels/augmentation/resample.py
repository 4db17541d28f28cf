"""The kernel that gathers: crops, resizing, and images whose rows are not a multiple of 8 pixels.

Per output pixel it loads 3 bytes without resampling, 12 when enlarging (2 x 2 taps), 3 * ceil(2 sx) * ceil(2 sy) when
shrinking by sx, sy; twice that with a partner. Neighbouring pixels share their taps through the cache, so device memory
sees each canvas byte about once: 256 canvases of 256 x 256 to 224 x 224 in bf16 move 127 MB, 30 us at 4.3 TB/s (H200);
instructions, not bytes, are the limit. Last measured: not yet measured.

The filter is Pillow's antialiased bilinear, horizontal then vertical, each pass rounded to a byte, with weights in
float32 where Pillow has 22-bit integers: a result may differ from Pillow's by one level, rarely.
"""

from __future__ import annotations

from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.philox import triton_normal, triton_words

BLOCK = 256


@triton.jit
def _normal_at(seed, element, sample, step, OPERATION: tl.constexpr):
    """The value at ``element`` of ``philox.field``'s normals, for elements in any order."""
    a, b, c, d = triton_words(seed, element // 4, sample, step, OPERATION)
    second = (element & 2) != 0
    even, odd = triton_normal(tl.where(second, c, a), tl.where(second, d, b))
    return tl.where((element & 1) != 0, odd, even)


@triton.jit
def _window(position, start, length, out: tl.constexpr):
    """Where the filter stands for each output position: its centre, reach, first tap and end."""
    scale = length / out
    reach = tl.maximum(scale, 1.0)
    center = start + (position.to(tl.float32) + 0.5) * scale
    first = tl.maximum(tl.floor(center - reach + 0.5), tl.floor(start))
    end = tl.minimum(tl.floor(center + reach + 0.5), tl.ceil(start + length))
    return center, reach, first, end


@triton.jit
def _weight(tap, center, reach, end):
    """The unnormalised triangle filter at pixel ``tap``."""
    weight = tl.maximum(1.0 - tl.abs((tap + 0.5 - center) / reach), 0.0)
    return tl.where(tap < end, weight, 0.0)


@triton.jit
def _row(image, y, center, reach, first, end, taps, H, W, live):
    """One canvas row, filtered horizontally and rounded: red, green, blue. Outside the canvas is black."""
    red = center * 0.0
    green = center * 0.0
    blue = center * 0.0
    total = center * 0.0
    inside_rows = live & (y >= 0) & (y < H)
    for i in range(taps):
        tap = first + i
        weight = _weight(tap, center, reach, end)
        x = tap.to(tl.int32)
        inside = inside_rows & (x >= 0) & (x < W) & (weight > 0)
        at = image + (y * W + x) * 3
        red += weight * tl.load(at, mask=inside, other=0).to(tl.int32).to(tl.float32)
        green += weight * tl.load(at + 1, mask=inside, other=0).to(tl.int32).to(tl.float32)
        blue += weight * tl.load(at + 2, mask=inside, other=0).to(tl.int32).to(tl.float32)
        total += weight
    share = 1.0 / total
    return tl.floor(red * share + 0.5), tl.floor(green * share + 0.5), tl.floor(blue * share + 0.5)


@triton.jit
def _source(
    images, crop, sample, y, x, H, W, live, h: tl.constexpr, w: tl.constexpr, CROP: tl.constexpr, RESIZE: tl.constexpr
):
    """Red, green and blue, 0 to 255, of the output pixels (y, x) of ``sample``, before any flip."""
    image = images + sample * H * W * 3
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
        cy, reach_y, first_y, end_y = _window(y, top, height, h)
        cx, reach_x, first_x, end_x = _window(x, left, width, w)
        taps_x = tl.ceil(2.0 * reach_x).to(tl.int32)
        red = cx * 0.0
        green = cx * 0.0
        blue = cx * 0.0
        total = cx * 0.0
        for i in range(tl.ceil(2.0 * reach_y).to(tl.int32)):
            tap = first_y + i
            weight = _weight(tap, cy, reach_y, end_y)
            r, g, b = _row(image, tap.to(tl.int32), cx, reach_x, first_x, end_x, taps_x, H, W, live & (weight > 0))
            red += weight * r
            green += weight * g
            blue += weight * b
            total += weight
        share = 1.0 / total
        return tl.floor(red * share + 0.5), tl.floor(green * share + 0.5), tl.floor(blue * share + 0.5)
    else:
        at = image + (y * W + x) * 3
        red = tl.load(at, mask=live, other=0).to(tl.int32).to(tl.float32)
        green = tl.load(at + 1, mask=live, other=0).to(tl.int32).to(tl.float32)
        blue = tl.load(at + 2, mask=live, other=0).to(tl.int32).to(tl.float32)
        return red, green, blue


@triton.jit
def _noisy(value, sigma, element, base, normal, sample, seed, step, live, DRAW: tl.constexpr, OPERATION: tl.constexpr):
    """clip(value + 255 * sigma * normal, 0, 255)."""
    if DRAW:
        field = _normal_at(seed, element, sample, step, OPERATION)
    else:
        field = tl.load(normal + base + element, mask=live, other=0.0)
    return tl.minimum(tl.maximum(value + sigma * 255.0 * field, 0.0), 255.0)


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
    OPERATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The arithmetic of ``stream_kernel``, one pixel per lane instead of eight bytes."""
    b = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < h * w
    pixel = tl.minimum(pixel, h * w - 1)
    y = pixel // w
    x = pixel - y * w
    H = tl.to_tensor(H)
    W = tl.to_tensor(W)
    N = h * w * 3
    poison = 0.0
    p = b
    weight = 1.0
    if PARTNER:
        p = tl.load(partner + b)
        known = (p >= 0) & (p < B)
        poison += tl.where(known, 0.0, float("nan"))
        p = tl.where(known, p, b)
    if BLEND:
        weight = tl.load(lam + b)
        poison += tl.where((weight >= 0) & (weight <= 1), 0.0, float("nan"))
    own_x = x
    if FLIP:
        own_x = tl.where(tl.load(flip + b) != 0, w - 1 - x, x)
    own = _source(images, crop, b, y, own_x, H, W, live, h, w, CROP, RESIZE)
    inside = live
    fill = tl.to_tensor(0)
    share = tl.to_tensor(1.0)
    if BOX:
        inside = (y >= tl.load(box + b * 4)) & (x >= tl.load(box + b * 4 + 1))
        inside = inside & (y < tl.load(box + b * 4 + 2)) & (x < tl.load(box + b * 4 + 3))
        if FILL:
            fill = tl.load(box_fill + b).to(tl.int32)
        share = tl.where(fill == 0, 1.0, tl.where(fill == 1, 1.0 - weight, 0.0))
    wanted = live
    other = own
    if PARTNER:
        if not BLEND:
            wanted = live & inside & (x < tl.where(share > 0, w, 0))
        other_x = x
        if FLIP:
            other_x = tl.where(tl.load(flip + p) != 0, w - 1 - x, x)
        other = _source(images, crop, p, y, other_x, H, W, wanted, h, w, CROP, RESIZE)
    own_sigma = 0.0
    other_sigma = 0.0
    own_index = b
    other_index = p
    if NOISE:
        own_sigma = tl.load(noise + b)
        other_sigma = tl.load(noise + p)
        if DRAW:
            own_index = tl.load(indices + b)
            other_index = tl.load(indices + p)
    for c in tl.static_range(3):
        scale = s0 if c == 0 else (s1 if c == 1 else s2)
        bias = (t0 if c == 0 else (t1 if c == 1 else t2)) + poison
        element = pixel * 3 + c
        value = own[c]
        if NOISE:
            if own_sigma > 0:
                value = _noisy(value, own_sigma, element, b * N, normal, own_index, seed, step, live, DRAW, OPERATION)
        result = value * (scale * weight) + bias
        replaced = tl.where(fill == 2, 0.0, bias)
        if PARTNER:
            value = other[c]
            if NOISE:
                if other_sigma > 0:
                    value = _noisy(
                        value, other_sigma, element, p * N, normal, other_index, seed, step, wanted, DRAW, OPERATION
                    )
            if BLEND:
                result = value * (scale * (1.0 - weight)) + result
            replaced = value * (scale * share) + replaced
        if BOX:
            result = tl.where(inside, replaced, result)
        tl.store(out + b * N + element, result.to(out.dtype.element_ty), mask=live)
