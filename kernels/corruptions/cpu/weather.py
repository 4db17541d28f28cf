"""snow's sum and fog: the plasma level by level in one map, then one pass over the image."""

from __future__ import annotations

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
def _snow(first, last, images, layer, weight, white, out):
    """uint8 [B, pixels, 3] and the layer uint8 [B, pixels]; float32 ``weight`` of images, ``white`` of whitened."""
    pixels = images.shape[1]
    for b in range(first, last):
        for i in range(pixels):
            red = np.float32(images[b, i, 0]) / np.float32(255)
            green = np.float32(images[b, i, 1]) / np.float32(255)
            blue = np.float32(images[b, i, 2]) / np.float32(255)
            gray = red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)
            gray = gray * np.float32(1.5) + np.float32(0.5)
            own, turned = _unit(layer[b, i]), _unit(layer[b, pixels - 1 - i])
            out[b, i, 0] = _level(np.float64(red * weight + max(red, gray) * white) + own + turned)
            out[b, i, 1] = _level(np.float64(green * weight + max(green, gray) * white) + own + turned)
            out[b, i, 2] = _level(np.float64(blue * weight + max(blue, gray) * white) + own + turned)


@compiled
def _plasma(first, last, uniform, scales, out):
    side, n = uniform.shape[1], out.shape[1]
    height = np.empty((side, side))
    low_mask = side - 1
    for b in range(first, last):
        height[0, 0] = 0.0
        step = side
        for scale in scales:
            half = step // 2
            for y in range(0, side, step):
                upper, lower = height[y], height[(y + step) & low_mask]
                center, drawn = height[y + half], uniform[b, y + half]
                for x in range(0, side, step):
                    beside = (x + step) & low_mask
                    shift = (drawn[x + half] * 2 - 1) * scale
                    total = (upper[x] + upper[beside]) + (lower[x] + lower[beside])
                    center[x + half] = total / 4 + shift
            for y in range(0, side, step):
                here, over, center = height[y], height[(y - half) & low_mask], height[y + half]
                below, drawn, drawn_below = height[(y + step) & low_mask], uniform[b, y], uniform[b, y + half]
                for x in range(0, side, step):
                    middle = center[x + half]
                    shift = (drawn[x + half] * 2 - 1) * scale
                    here[x + half] = ((here[x] + here[(x + step) & low_mask]) + middle + over[x + half]) / 4 + shift
                    shift = (drawn_below[x] * 2 - 1) * scale
                    center[x] = ((here[x] + below[x]) + middle + center[(x - half) & low_mask]) / 4 + shift
            step = half
        low, high = height[0, 0], height[0, 0]
        for y in range(side):
            for x in range(side):
                low, high = min(low, height[y, x]), max(high, height[y, x])
        span = high - low
        for y in range(n):
            for x in range(n):
                out[b, y, x] = np.float32((height[y, x] - low) / span)


@compiled
def _fog(first, last, images, plasma, amount, out):
    for b in range(first, last):
        most = np.uint8(0)
        for i in range(images.shape[1]):
            for c in range(3):
                most = max(most, images[b, i, c])
        brightest = _unit(most)
        for i in range(images.shape[1]):
            fog = plasma[b, i] * amount
            for c in range(3):
                out[b, i, c] = _level((_unit(images[b, i, c]) + fog) * brightest / (brightest + amount))


def snow(images: Tensor, layer: Tensor, weight: float) -> Tensor:
    """``snow.snow_reference``."""
    out = torch.empty_like(images)
    source, target = (as_array(x).reshape(len(images), -1, 3) for x in (images, out))
    layers, weights = as_array(layer).reshape(len(layer), -1), (np.float32(weight), np.float32(1 - weight))
    run(_snow, len(images), source, layers, *weights, target, cost=3 * images.numel())
    return out


def plasma(uniform: Tensor, scales: Tensor, n: int) -> Tensor:
    """``fog.plasma_reference``."""
    out = torch.empty((len(uniform), n, n), dtype=torch.float32)
    run(_plasma, len(uniform), as_array(uniform.double()), as_array(scales), as_array(out), cost=10 * uniform.numel())
    return out


def fog(images: Tensor, plasma: Tensor, amount: Tensor) -> Tensor:
    """``fog.fog_reference``."""
    out = torch.empty_like(images)
    source, target = (as_array(x).reshape(len(images), -1, 3) for x in (images, out))
    layers = as_array(plasma.double()).reshape(len(images), -1)
    run(_fog, len(images), source, layers, float(amount), target, cost=3 * images.numel())
    return out
