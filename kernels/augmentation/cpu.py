"""``augment`` on the compiled CPU route: the formula of ``reference.py``, row by row, each output written once.

The operations of a value are the reference's in its order, so results are equal to the bit. A band of rows stays in
cache from bytes to output. Crop and resize make an image of bytes per thread; where partners read it, of the batch.
Bytes per value with float32 out: 1 in (2 where a partner is blended), 4 out. Limit: a copy of the same mix, beside
which ``benchmarks/README.md`` has the measured time.

Arrays are flat with offsets, and functions do bands of rows: numba counts references to each array that is passed or
sliced, and for every row that takes longer than its values. Inner loops count in uint64: numba looks for negative
signed indices, which prevents vector instructions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.augmentation.resize_cpu import resize
from fastreg.kernels.compiled import as_array, compiled, fma, run, to_bfloat16, to_float16
from fastreg.kernels.types import Plan


class _Fields(NamedTuple):
    """The fields of ``Plan`` after crop and flip; an empty array is None. Boxes are [4 B]."""

    noise: np.ndarray = np.empty(0, np.float32)
    partner: np.ndarray = np.empty(0, np.int64)
    lam: np.ndarray = np.empty(0, np.float32)
    box: np.ndarray = np.empty(0, np.int32)
    box_fill: np.ndarray = np.empty(0, np.int8)
    erase: np.ndarray = np.empty(0, np.int32)
    erase_noise: np.ndarray = np.empty(0, np.float32)


_NONE = {dtype: np.empty(0, dtype) for dtype in (np.float32, np.int16, np.uint8)}
_NO_CROP = np.empty((0, 4), np.float32)
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_BAND = 16  # rows
_STREAM, _RESIZE = 0.5, 2.5  # nanoseconds per value on one thread, roughly


def augment_cpu(
    images: Tensor,
    plan: Plan,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
    size: tuple[int, int],
    normal: Tensor | None,
) -> Tensor:
    """``augment`` on checked arguments; ``normal`` as for ``augment_reference``."""
    B, H, W, _ = images.shape
    h, n = size[0], size[1] * 3
    out = torch.empty((B, *size, 3), dtype=dtype)
    pixels, result = as_array(images).reshape(B, H, W * 3), as_array(out)
    flip = _NONE[np.uint8] if plan.flip is None else as_array(plan.flip)
    crop = _NO_CROP
    if plan.crop is not None or (H, W) != size:
        crop = np.tile(np.asarray([0, 0, H, W], np.float32), (B, 1)) if plan.crop is None else as_array(plan.crop)
    cost = out.numel() * (_RESIZE if len(crop) else _STREAM)
    if dtype == torch.uint8 or (len(crop) and plan.partner is not None):
        cropped = result.reshape(B, h, n) if dtype == torch.uint8 else np.empty((B, h, n), np.uint8)
        run(_crop_and_flip, B, cropped, pixels, crop, flip, cost=cost)
        pixels, crop, flip = cropped, _NO_CROP, _NONE[np.uint8]
    if dtype != torch.uint8:
        wide, half = (result.reshape(-1), _NONE[np.int16]) if dtype == torch.float32 else (_NONE[np.float32], result)
        given = {name: as_array(f).reshape(-1) for name in _Fields._fields if (f := getattr(plan, name)) is not None}
        normals = _NONE[np.float32] if normal is None else as_array(normal).reshape(-1)
        shape = (wide, half.reshape(-1), _KINDS[dtype], h, n)
        run(_augment, B, *shape, pixels, crop, flip, _Fields(**given), normals, *_stats(mean, std, n // 3), cost=cost)
    return out.permute(0, 3, 1, 2)


@lru_cache(maxsize=16)
def _stats(mean: tuple[float, ...], std: tuple[float, ...], w: int) -> tuple[Any, Any]:
    """Mean and standard deviation of each value of a row."""
    return np.tile(np.asarray(mean, np.float32), w), np.tile(np.asarray(std, np.float32), w)


@compiled
def _crop_and_flip(first, last, out, images, crop, flip):
    h, n = out.shape[1], out.shape[2]
    rows = out.reshape(-1)
    for i in range(first, last):
        flipped = len(flip) > 0 and flip[i] != 0
        if len(crop):
            resize(out[i], images[i], crop[i], flipped)
        elif flipped:
            _reverse(rows, np.uint64(i * h * n), images.reshape(-1), np.uint64(i * h * n), h, n)
        else:
            out[i] = images[i]


@compiled
def _augment(first, last, wide, half, kind, h, n, images, crop, flip, plan, normal, mean, std):
    one_image = np.empty((h if len(crop) else 0, n), np.uint8)
    bands = (np.empty(_BAND * n, np.float32), np.empty(_BAND * n, np.float32), np.empty(_BAND * n, np.uint8))
    flat = images.reshape(-1)
    for i in range(first, last):
        pixels, first_image, flips = flat, 0, flip
        if len(crop):
            resize(one_image, images[i], crop[i], len(flip) > 0 and flip[i] != 0)
            pixels, first_image, flips = one_image.reshape(-1), i, flip[:0]
        _image(i, first_image, wide, half, kind, h, n, bands, pixels, flips, plan, normal, mean, std)


@compiled
def _image(i, first_image, wide, half, kind, h, n, bands, images, flip, plan, normal, mean, std):
    """Sample i. The bytes of sample j are image j - ``first_image``; a row has ``n`` values."""
    weight = plan.lam[i] if len(plan.lam) else np.float32(1)
    other = plan.partner[i] if len(plan.partner) else i
    fill = plan.box_fill[i] if len(plan.box_fill) else 0
    y0, x0, y1, x1 = _box(plan.box, i, h, n)
    band, other_band, reversed_rows = bands
    out, at = band, np.uint64(0)
    if kind == 0:
        out = wide
    y = 0
    while y < h:
        inside = y0 <= y < y1 and x0 < x1
        last = min(y + _BAND, y1 if inside else (y0 if y < y0 else h), h)
        place = np.uint64((i * h + y) * n)
        if kind == 0:
            at = place
        covered = inside and weight == 1  # by the box: each pixel is made once
        for part in range(3):  # one call in this loop, as each one compiles for seconds
            target, to, sample, start, end = out, at, i, 0, n
            if covered:
                sample = i if part < 2 else other
                start = (0, x1, x0)[part]
                end = (x0, n, x1 if fill == 0 else x0)[part]
            elif part == 1 and weight != 1:
                target, to, sample = other_band, np.uint64(0), other
            elif part > 0:
                break
            _normalized(
                target, to, sample, start, end, y, last, first_image, images, h, n, flip, reversed_rows, plan, normal,
                mean, std,
            )  # fmt: skip
        if inside and fill == 1:
            _fill(out, at, x0, x1, last - y, n, True, mean, std)
        if weight != 1:
            pasted = inside and fill == 0
            for part in range(2 if pasted else 1):
                share, start, end = (np.float32(0), x0, x1) if part else (weight, 0, n)
                _blend(out, at, other_band, share, start, end, last - y, n)
        if inside and fill == 2:
            _fill(out, at, x0, x1, last - y, n, False, mean, std)
        if kind == 1:
            to_bfloat16(half, place, band, (last - y) * n)
        elif kind == 2:
            to_float16(half, place, band, (last - y) * n)
        y = last


@compiled
def _box(box, i, h, n):
    """The part of a box inside the image: first and last row, first and last value of a row. Empty without boxes."""
    if len(box) == 0:
        return 0, 0, 0, 0
    y0, x0, y1, x1 = box[4 * i], 3 * max(box[4 * i + 1], 0), box[4 * i + 2], 3 * max(box[4 * i + 3], 0)
    return max(y0, 0), min(x0, n), min(y1, h), min(x1, n)


@compiled
def _normalized(
    out, at, i, start, end, y, last, first_image, images, h, n, flip, reversed_rows, plan, normal, mean, std
):  # fmt: skip
    """Values ``start`` to ``end`` of rows y to ``last`` of sample i, normalized and erased, into ``out[at:]``."""
    begin, stop, width, height = np.uint64(start), np.uint64(max(start, end)), np.uint64(n), np.uint64(last - y)
    source, drawn = np.uint64(((i - first_image) * h + y) * n), np.uint64((i * h + y) * n)
    pixels = images
    if len(flip) and flip[i]:
        _reverse(reversed_rows, np.uint64(0), images, source, last - y, n)
        pixels, source = reversed_rows, np.uint64(0)
    for r in range(height):
        to, origin, field = at + r * width, source + r * width, drawn + r * width
        if len(plan.noise):
            sigma = plan.noise[i]
            for k in range(begin, stop):
                x = unit(pixels[origin + k]) + sigma * normal[field + k]
                x = np.float32(0) if x < 0 else (np.float32(1) if x > 1 else x)
                out[to + k] = (x - mean[k]) / std[k]
        else:
            for k in range(begin, stop):
                out[to + k] = (unit(pixels[origin + k]) - mean[k]) / std[k]
    if len(plan.erase):
        y0, x0, y1, x1 = _box(plan.erase, i, h, n)
        left = np.uint64(max(x0, start))
        right = np.uint64(max(min(x1, end), max(x0, start)))
        for r in range(height):
            if y0 <= y + np.int64(r) < y1:
                for k in range(left, right):
                    value = np.float32(0)
                    if len(plan.erase_noise):
                        value = plan.erase_noise[i] * normal[drawn + r * width + k]
                    out[at + r * width + k] = value


@compiled
def _reverse(out, at, images, source, rows, n):
    """Rows of ``n`` values at ``images[source:]``, with their pixels in reverse order, into ``out[at:]``."""
    one, two, three, width = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(n)
    for r in range(np.uint64(rows)):
        start = at + r * width
        last = source + r * width + width - three
        for x in range(width // three):
            to = three * x
            out[start + to] = images[last - to]
            out[start + to + one] = images[last - to + one]
            out[start + to + two] = images[last - to + two]


@compiled
def unit(byte):
    """byte / 255 rounded once, as a product and its correction: half of a division's time."""
    x, inverse = np.float32(np.int32(byte)), np.float32(1 / 255)
    quotient = x * inverse
    return fma(fma(-quotient, np.float32(255), x), inverse, quotient)


@compiled
def _fill(out, at, x0, x1, rows, n, black, mean, std):
    """Black, or zero, in values ``x0`` to ``x1`` of each row."""
    for r in range(np.uint64(rows)):
        for k in range(np.uint64(x0), np.uint64(x1)):
            out[at + r * np.uint64(n) + k] = -mean[k] / std[k] if black else np.float32(0)


@compiled
def _blend(out, at, other, weight, x0, x1, rows, n):
    """torch.lerp(other, out, weight) in values ``x0`` to ``x1`` of each row."""
    rest = weight - np.float32(1)
    for r in range(np.uint64(rows)):
        row = r * np.uint64(n)
        if weight < np.float32(0.5):
            for k in range(row + np.uint64(x0), row + np.uint64(x1)):
                out[at + k] = fma(weight, out[at + k] - other[k], other[k])
        else:
            for k in range(row + np.uint64(x0), row + np.uint64(x1)):
                out[at + k] = fma(rest, out[at + k] - other[k], out[at + k])
