"""``augment`` on the compiled CPU route: the formula of ``reference.py``, row by row, each output written once.

A byte has 256 values, so normalization without noise is a table of 256 values per channel, which torch computes. A row
of 224 pixels stays in the first cache from byte to output. Crop and resize take one pass by columns and one by rows in
Pillow's 22-bit integers, into one image per thread; where a partner reads it too, into uint8 images of the batch.

Bytes per element with float32 out: 1 in (2 where a partner is blended), 4 out. Limit: a copy of the same mix; measured
shares of it are in ``benchmarks/README.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.augmentation.reference import BITS, resize_taps
from fastreg.kernels.compiled import as_array, compiled, fma, run
from fastreg.kernels.types import Plan

_FIELDS = ("flip", "noise", "partner", "lam", "box", "box_fill", "erase", "erase_noise")
_DTYPES = {
    "flip": torch.bool,
    "partner": torch.int64,
    "box": torch.int32,
    "box_fill": torch.int8,
    "erase": torch.int32,
}  # the others: float32
_HALF = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


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
    B = len(images)
    resized = plan.crop is not None or tuple(images.shape[1:3]) != size
    out = torch.empty((B, *size, 3), dtype=dtype)
    cost = out.numel() * (6 if resized else 2)
    if dtype == torch.uint8:  # crop and flip alone
        if resized:
            run(_resize_all, B, as_array(out), *_resize_arguments(images, plan, size), cost=cost)
        else:
            run(_flip_all, B, as_array(out), as_array(images), _field(plan, "flip"), cost=cost)
        return out.permute(0, 3, 1, 2)
    taps = _resize_arguments(images, plan, size)
    if resized and plan.partner is not None:
        small = torch.empty((B, *size, 3), dtype=torch.uint8)
        run(_resize_all, B, as_array(small), *taps, cost=cost)
        images, plan, resized = small, plan._replace(flip=None), False
        taps = _resize_arguments(images, plan, size)
    wide, half = (out, out.new_empty((0,) * 4, dtype=torch.float16))
    if dtype != torch.float32:
        wide, half = out.new_empty((0,) * 4, dtype=torch.float32), out
    run(
        _augment_all,
        B,
        as_array(wide),
        as_array(half),
        _HALF[dtype],
        resized,
        *taps,
        *(_field(plan, name) for name in _FIELDS[1:]),
        as_array(torch.empty((0,) * 4) if normal is None else normal),
        as_array(_levels(mean, std)),
        np.asarray([mean, std], np.float32),
        cost=cost,
    )
    return out.permute(0, 3, 1, 2)


def _field(plan: Plan, name: str) -> np.ndarray:
    """A field of the plan; empty for None."""
    field = getattr(plan, name)
    if field is None:
        shape = (0, 4) if name in ("box", "erase") else (0,)
        field = torch.empty(shape, dtype=_DTYPES.get(name, torch.float32))
    return as_array(field)


def _levels(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The normalized value of each byte, float32 [3, 256], by the reference's operations."""
    pixels = torch.arange(256.0).div_(255).expand(3, 256)
    return (pixels - torch.tensor(mean)[:, None]).div_(torch.tensor(std)[:, None])


def _resize_arguments(images: Tensor, plan: Plan, size: tuple[int, int]) -> tuple[Any, ...]:
    """Images, flip, and per axis the first tap [B, out] and weights [B, out, taps], empty where sizes stay."""
    B, H, W, _ = images.shape
    pixels, flip = as_array(images), _field(plan, "flip")
    if plan.crop is None and (H, W) == size:
        return pixels, flip, *[np.empty((0, 0), np.int32), np.empty((0, 0, 0), np.int32)] * 2
    crop = torch.tensor([0.0, 0.0, H, W]).expand(B, 4) if plan.crop is None else plan.crop
    taps = (resize_taps(crop[:, k], crop[:, k + 2], side, out) for k, (side, out) in enumerate(zip((H, W), size)))
    return pixels, flip, *(as_array(x.to(torch.int32)) for pair in taps for x in pair)


@compiled
def _augment_all(
    first, last, wide, half, kind, resized, images, flip, first_y, weights_y, first_x, weights_x,
    noise, partner, lam, box, box_fill, erase, erase_noise, normal, levels, stats,
):  # fmt: skip
    h, w = (wide.shape[1], wide.shape[2]) if kind == 0 else (half.shape[1], half.shape[2])
    own_row = np.empty(w * 3, np.float32)
    other_row = np.empty(w * 3, np.float32)
    small = np.empty((1, h, w, 3), np.uint8)
    columns = np.empty((images.shape[1], w * 3), np.uint8)
    for i in range(first, last):
        weight = lam[i] if len(lam) else np.float32(1)
        other = partner[i] if len(partner) else i
        fill = box_fill[i] if len(box_fill) else 0
        y0, x0, y1, x1 = _box(box, i, h, w)
        own_flip = len(flip) > 0 and flip[i] != 0
        other_flip = len(flip) > 0 and flip[other] != 0
        if resized:
            _resize(small[0], images[i], own_flip, first_y[i], weights_y[i], first_x[i], weights_x[i], columns)
        for y in range(h):
            row = wide[i, y].reshape(w * 3) if kind == 0 else own_row
            pixels = small[0, y] if resized else images[i, y]
            flipped = own_flip and not resized
            inside = y0 <= y < y1 and x0 < x1
            if inside and weight == 1:  # the box covers the image
                _normalized(row, pixels, flipped, i, y, 0, x0, noise, erase, erase_noise, normal, levels, stats)
                _normalized(row, pixels, flipped, i, y, x1, w, noise, erase, erase_noise, normal, levels, stats)
                if fill == 0:
                    _normalized(
                        row, images[other, y], other_flip, other, y, x0, x1,
                        noise, erase, erase_noise, normal, levels, stats,
                    )  # fmt: skip
                else:
                    _fill(row, x0, x1, fill == 1, levels)
            else:
                _normalized(row, pixels, flipped, i, y, 0, w, noise, erase, erase_noise, normal, levels, stats)
            if weight != 1:
                if inside and fill == 1:
                    _fill(row, x0, x1, True, levels)
                _normalized(
                    other_row, images[other, y], other_flip, other, y, 0, w,
                    noise, erase, erase_noise, normal, levels, stats,
                )  # fmt: skip
                _blend(row, other_row, weight)
                if inside and fill == 0:
                    row[3 * x0 : 3 * x1] = other_row[3 * x0 : 3 * x1]
                elif inside and fill == 2:
                    _fill(row, x0, x1, False, levels)
            if kind == 1:
                _to_bfloat16(half[i, y].reshape(w * 3), row)
            elif kind == 2:
                _to_float16(half[i, y].reshape(w * 3), row)


@compiled
def _box(box, i, h, w):
    """The part of a box inside the image, (y0, x0, y1, x1); empty without boxes."""
    if len(box) == 0:
        return 0, 0, 0, 0
    return max(box[i, 0], 0), min(max(box[i, 1], 0), w), min(max(box[i, 2], 0), h), min(max(box[i, 3], 0), w)


@compiled
def _normalized(row, pixels, flipped, i, y, start, end, noise, erase, erase_noise, normal, levels, stats):
    """Columns ``start`` to ``end`` of row y of sample i, after normalization and its erased box."""
    w = pixels.shape[0]
    if len(noise) == 0:
        for x in range(start, end):
            source = w - 1 - x if flipped else x
            row[3 * x] = levels[0, pixels[source, 0]]
            row[3 * x + 1] = levels[1, pixels[source, 1]]
            row[3 * x + 2] = levels[2, pixels[source, 2]]
    else:
        sigma = noise[i]
        for x in range(start, end):
            source = w - 1 - x if flipped else x
            for c in range(3):
                v = np.float32(pixels[source, c]) / np.float32(255) + sigma * normal[i, y, x, c]
                v = np.float32(0) if v < 0 else (np.float32(1) if v > 1 else v)
                row[3 * x + c] = (v - stats[0, c]) / stats[1, c]
    y0, x0, y1, x1 = _box(erase, i, normal.shape[1] if len(erase_noise) else y + 1, w)
    if y0 <= y < y1:
        for x in range(max(x0, start), min(x1, end)):
            for c in range(3):
                row[3 * x + c] = erase_noise[i] * normal[i, y, x, c] if len(erase_noise) else np.float32(0)


@compiled
def _fill(row, x0, x1, black, levels):
    for x in range(x0, x1):
        for c in range(3):
            row[3 * x + c] = levels[c, 0] if black else np.float32(0)


@compiled
def _blend(row, other, weight):
    """torch.lerp(other, row, weight)."""
    if weight < np.float32(0.5):
        for k in range(len(row)):
            row[k] = fma(weight, row[k] - other[k], other[k])
    else:
        rest = weight - np.float32(1)
        for k in range(len(row)):
            row[k] = fma(rest, row[k] - other[k], row[k])


@compiled
def _to_bfloat16(out, row):
    """Round to nearest even. ``out`` has the bits as int16."""
    bits = row.view(np.uint32)
    for k in range(len(row)):
        b = bits[k]
        rounded = (b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        out[k] = np.int16(np.uint16(rounded if row[k] == row[k] else np.uint32(0x7FC0)))


@compiled
def _to_float16(out, row):
    """Round to nearest even, to infinity from 65520 on. ``out`` has the bits as int16."""
    bits = row.view(np.uint32)
    for k in range(len(row)):
        sign = (bits[k] >> np.uint32(16)) & np.uint32(0x8000)
        b = bits[k] & np.uint32(0x7FFFFFFF)
        if b > np.uint32(0x7F800000):
            half = np.uint32(0x7E00)
        elif b >= np.uint32(0x47800000):
            half = np.uint32(0x7C00)
        elif b < np.uint32(0x38800000):  # subnormal: units of 2**-24
            half = np.uint32(np.rint(np.float64(abs(row[k])) * np.float64(2**24)))
        else:
            odd = (b >> np.uint32(13)) & np.uint32(1)
            half = (b - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)
        out[k] = np.int16(np.uint16(half | sign))


@compiled
def _resize_all(first, last, out, images, flip, first_y, weights_y, first_x, weights_x):
    columns = np.empty((images.shape[1], out.shape[2] * 3), np.uint8)
    for i in range(first, last):
        flipped = len(flip) > 0 and flip[i] != 0
        _resize(out[i], images[i], flipped, first_y[i], weights_y[i], first_x[i], weights_x[i], columns)


@compiled
def _resize(out, image, flipped, first_y, weights_y, first_x, weights_x, columns):
    """Crop, resize and flip one image, by columns and then by rows. ``columns`` is scratch memory."""
    H, W, h, w = image.shape[0], image.shape[1], out.shape[0], out.shape[1]
    half = np.int32(1 << (BITS - 1))
    low, high = H, 0  # the rows that have a weight
    for y in range(h):
        for k in range(weights_y.shape[1]):
            if weights_y[y, k] != 0:
                low, high = min(low, first_y[y] + k), max(high, first_y[y] + k + 1)
    for x in range(w):
        begin, end = _support(weights_x[x])
        at = 3 * (w - 1 - x if flipped else x)
        for r in range(low, high):
            red, green, blue = half, half, half
            for k in range(begin, end):
                source, weight = first_x[x] + k, weights_x[x, k]
                red += weight * np.int32(image[r, source, 0])
                green += weight * np.int32(image[r, source, 1])
                blue += weight * np.int32(image[r, source, 2])
            columns[r, at] = red >> BITS
            columns[r, at + 1] = green >> BITS
            columns[r, at + 2] = blue >> BITS
    sums = np.empty(w * 3, np.int32)
    for y in range(h):
        begin, end = _support(weights_y[y])
        sums[:] = half
        for k in range(begin, end):
            source, weight = columns[first_y[y] + k], weights_y[y, k]
            for e in range(w * 3):
                sums[e] += weight * np.int32(source[e])
        row = out[y].reshape(w * 3)
        for e in range(w * 3):
            row[e] = sums[e] >> BITS


@compiled
def _support(weights):
    """The first and last + 1 of the weights that are not zero."""
    begin, end = 0, len(weights)
    while begin < end and weights[begin] == 0:
        begin += 1
    while end > begin and weights[end - 1] == 0:
        end -= 1
    return begin, end


@compiled
def _flip_all(first, last, out, images, flip):
    w = images.shape[2]
    for i in range(first, last):
        flipped = len(flip) > 0 and flip[i] != 0
        for y in range(images.shape[1]):
            for x in range(w):
                source = w - 1 - x if flipped else x
                for c in range(3):
                    out[i, y, x, c] = images[i, y, source, c]
