"""Separable Gaussian filters in scipy's order, row by row: the center, then pairs from the farthest to the nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run


@compiled
def _down(x, y, weights, line):
    """Row ``y`` of ``x`` float64 [n, values] filtered along the columns, into ``line``."""
    n, radius = x.shape[0], len(weights) // 2
    here, center = x[y], weights[radius]
    for i in range(len(line)):
        line[i] = here[i] * center
    for j in range(radius, 0, -1):
        near, far, weight = x[max(y - j, 0)], x[min(y + j, n - 1)], weights[radius + j]
        for i in range(len(line)):
            line[i] += (near[i] + far[i]) * weight


@compiled
def _across(line, wide, channels, weights, out):
    """``line`` [n C] filtered along its pixels into ``out``; ``wide`` [(n + 2 radius) C] is a buffer."""
    radius = len(weights) // 2
    edge, size, center = radius * channels, len(line), weights[radius]
    for i in range(edge):
        wide[i] = line[i % channels]
        wide[edge + size + i] = line[size - channels + i % channels]
    for i in range(size):
        wide[edge + i] = line[i]
    for i in range(size):
        out[i] = line[i] * center
    for j in range(radius, 0, -1):
        near, far = wide[edge - j * channels :], wide[edge + j * channels :]
        weight = weights[radius + j]
        for i in range(size):
            out[i] += (near[i] + far[i]) * weight


@compiled
def _filter_levels(first, last, images, weights, channels, out):
    """uint8 [B, n, n C] to uint8, by way of numbers in [0, 1]."""
    n, size = images.shape[1], images.shape[2]
    x, line, result = np.empty((n, size)), np.empty(size), np.empty(size)
    wide = np.empty(size + 2 * (len(weights) // 2) * channels)
    for b in range(first, last):
        for y in range(n):
            for i in range(size):
                value = np.float64(np.int64(images[b, y, i]) * np.int64(257)) * 1.52587890625e-05
                x[y, i] = value + value * 1.5259021896696422e-05  # level / 255, correctly rounded
        for y in range(n):
            _down(x, y, weights, line)
            _across(line, wide, channels, weights, result)
            for i in range(size):
                level: Any = result[i]
                level = 0.0 if level < 0 else level
                level = 1.0 if level > 1 else level
                out[b, y, i] = np.uint8(np.int32(level * 255))


@compiled
def _filter_numbers(first, last, x, weights, channels, out):
    """float64 [B, n, n C]."""
    size = x.shape[2]
    line, wide = np.empty(size), np.empty(size + 2 * (len(weights) // 2) * channels)
    for b in range(first, last):
        for y in range(x.shape[1]):
            _down(x[b], y, weights, line)
            _across(line, wide, channels, weights, out[b, y])


def filter_levels(images: Tensor, weights: Tensor) -> Tensor:
    """``quantize(gaussian_reference(unit(images), weights))``."""
    out = torch.empty_like(images)
    _run(_filter_levels, images, weights, out)
    return out


def filter_numbers(x: Tensor, weights: Tensor) -> Tensor:
    """``gaussian.gaussian_reference``."""
    out = torch.empty(x.shape, dtype=x.dtype)
    _run(_filter_numbers, x, weights, out)
    return out


def _run(kernel, x: Tensor, weights: Tensor, out: Tensor) -> None:
    batch, n, _, channels = x.shape
    source, target = (as_array(t).reshape(batch, n, -1) for t in (x, out))
    run(kernel, batch, source, as_array(weights), channels, target, cost=0.3 * x.numel() * len(weights))
