"""Crop, resize and flip of one image on the compiled CPU route: Pillow's arithmetic, by columns and then by rows.

Weights are computed in float64 and used in units of 2**-22, as in ``reference.py``; sums of 8-bit pixels and these
weights fit 32-bit integers.
"""

from __future__ import annotations

import numpy as np

from fastreg.kernels.augmentation.reference import BITS
from fastreg.kernels.compiled import compiled


@compiled
def resize(out, image, crop, flipped):
    """``out`` [h, w * 3] from ``image`` [H, W * 3] and ``crop`` [4], all bytes but the crop."""
    H, W, h, w = image.shape[0], image.shape[1] // 3, out.shape[0], out.shape[1] // 3
    top, rows, weights_y = _taps(crop[0], crop[2], H, h)
    left, columns, weights_x = _taps(crop[1], crop[3], W, w)
    low, high = H, 0  # the rows that have a weight
    for y in range(h):
        if rows[y] > 0:
            low, high = min(low, top[y]), max(high, top[y] + rows[y])
    narrow = np.empty((max(high - low, 0), w * 3), np.uint8)
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    half = np.int32(1 << (BITS - 1))
    for r in range(low, high):
        source, row = image[r], narrow[r - low]
        for x in range(np.uint64(w)):
            red, green, blue = half, half, half
            at, weight = three * np.uint64(left[x]), weights_x[x]
            for k in range(np.uint64(columns[x])):
                red += weight[k] * np.int32(source[at])
                green += weight[k] * np.int32(source[at + one])
                blue += weight[k] * np.int32(source[at + two])
                at += three
            to = three * (np.uint64(w - 1) - x if flipped else x)
            row[to] = red >> BITS
            row[to + one] = green >> BITS
            row[to + two] = blue >> BITS
    sums = np.empty(w * 3, np.int32)
    for y in range(h):
        sums[:] = half
        for k in range(rows[y]):
            row, weight_y = narrow[top[y] - low + k], weights_y[y, k]
            for e in range(np.uint64(len(sums))):
                sums[e] += weight_y * np.int32(row[e])
        row = out[y]
        for e in range(np.uint64(len(sums))):
            row[e] = sums[e] >> BITS


@compiled
def _taps(start, length, side, out):
    """First input pixel, number of pixels and weights of each output pixel; pixels outside the image are left out."""
    start, length = np.float64(start), np.float64(length)
    scale = length / out
    reach = max(scale, 1.0)
    width = int(np.ceil(reach)) * 2 + 1
    begin, count, weights = np.zeros(out, np.int64), np.zeros(out, np.int64), np.zeros((out, width), np.int32)
    window = np.empty(width)
    for o in range(out):
        center = start + (o + 0.5) * scale
        first = max(np.floor(center - reach + 0.5), np.floor(start))
        last = min(np.floor(center + reach + 0.5), np.ceil(start + length))
        total = 0.0
        for k in range(width):
            tap = first + k
            weight = max(1 - abs((tap + 0.5 - center) / reach), 0.0) if tap < last else 0.0
            window[k] = weight
            total += weight
        for k in range(width):
            weight, tap = np.int32(np.floor(window[k] / total * 2**BITS + 0.5)), int(first) + k
            if weight != 0 and 0 <= tap < side:
                if count[o] == 0:
                    begin[o] = tap
                weights[o, tap - begin[o]] = weight
                count[o] = tap - begin[o] + 1
    return begin, count, weights
