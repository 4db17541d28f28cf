"""contrast by a table of an image's 256 levels; brightness and saturate pixel by pixel; fog's and frost's sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run


@compiled
def _unit(level):
    """level / 255 in float64, correctly rounded, without a division."""
    x = np.float64(np.int64(level) * np.int64(257)) * 1.52587890625e-05
    return x + x * 1.5259021896696422e-05


@compiled
def _level(x):
    """uint8 of a number on the 0-1 scale: clip, times 255, truncate."""
    x = 0.0 if x < 0 else x
    x = 1.0 if x > 1 else x
    return np.uint8(np.int32(x * 255))


@compiled
def _contrast(first, last, images, factor, out):
    table = np.empty(256, np.uint8)
    pixels = images.shape[1]
    for b in range(first, last):
        for c in range(3):
            total = np.int64(0)
            for i in range(pixels):
                total += images[b, i, c]
            mean = np.float64(total) / np.float64(255 * pixels)
            for level in range(256):
                table[level] = _level((_unit(level) - mean) * factor + mean)
            for i in range(pixels):
                out[b, i, c] = table[images[b, i, c]]


@compiled
def _hsv(first, last, images, factor, addend, shift, out):
    for i in range(first, last):
        r, g, b = _unit(images[i, 0]), _unit(images[i, 1]), _unit(images[i, 2])
        v = max(max(r, g), b)
        delta = v - min(min(r, g), b)
        gray = delta == 0
        divisor = 1.0 if gray else delta
        s = 0.0 if gray else delta / v
        turn = (r - g) / divisor + 4 if b == v else ((b - r) / divisor + 2 if g == v else (g - b) / divisor)
        hue = turn / 6
        hue = hue + 1 if hue < 0 else hue
        hue = 0.0 if gray else hue * 6
        s = s * factor + addend
        s = min(max(s, 0.0), 1.0)
        v = min(max(v + shift, 0.0), 1.0)
        sector = np.floor(hue)
        f = hue - sector
        k: Any = np.int32(sector)
        k = 0 if k == 6 else k
        f = f if k & 1 else 1 - f
        most, least, mid = _level(v), _level(v * (1 - s)), _level(v * (1 - f * s))
        # the sectors in which a channel is the largest, and the middle one
        out[i, 0] = most if k == 0 or k == 5 else (mid if k == 1 or k == 4 else least)
        out[i, 1] = most if k == 1 or k == 2 else (mid if k == 0 or k == 3 else least)
        out[i, 2] = most if k == 3 or k == 4 else (mid if k == 2 or k == 5 else least)


@compiled
def _blend(first, last, images, pixels, start, stride, image_weight, texture_weight, out):
    """Images uint8 [B, n, 3 n] and crops of ``pixels`` uint8 [values], whose first value is ``start``."""
    for b in range(first, last):
        for y in range(images.shape[1]):
            line = pixels[start[b] + y * stride[b] :]
            for i in range(images.shape[2]):
                x = np.float64(images[b, y, i]) * image_weight + np.float64(line[i]) * texture_weight
                x = 0.0 if x < 0 else x
                x = 255.0 if x > 255 else x
                out[b, y, i] = np.uint8(np.int32(x))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """``color.contrast_reference``."""
    out = torch.empty_like(images)
    source, target = (as_array(x).reshape(len(images), -1, 3) for x in (images, out))
    run(_contrast, len(images), source, float(factor), target, cost=images.numel())
    return out


def hsv(images: Tensor, change: Tensor) -> Tensor:
    """``color.hsv_reference``."""
    out = torch.empty_like(images)
    source, target = (as_array(x).reshape(-1, 3) for x in (images, out))
    run(_hsv, len(source), source, *change.tolist(), target, cost=4 * images.numel())
    return out


def frost(images: Tensor, pixels: Tensor, first: Tensor, stride: Tensor, weights: Tensor) -> Tensor:
    """``frost.frost_reference``."""
    out = torch.empty_like(images)
    batch, n = images.shape[:2]
    source, target = (as_array(x).reshape(batch, n, -1) for x in (images, out))
    places = (as_array(x.long() * 3) for x in (first, stride))
    run(_blend, batch, source, as_array(pixels).reshape(-1), *places, *weights.tolist(), target, cost=images.numel())
    return out
