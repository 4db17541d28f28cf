"""Bilinear reads: zoom_blur's zooms in float32, elastic_transform's two warps and snow's flakes in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run


@compiled
def _level(x):
    """uint8 of a number on the 0-1 scale: clip, times 255, truncate."""
    x = 0.0 if x < 0 else x
    x = 1.0 if x > 1 else x
    return np.uint8(np.int32(x * 255))


@compiled
def _zooms(first, last, x, left, right, beside, weight, along, out):
    """Mean of float32 [B, n, 3 n] and its zooms. Of each zoom, per row: the two rows read and the weight of the second;
    per value: ``beside`` int32 [zooms, 2, 3 n], the values of a row that are read, and ``along``, the second's weight.
    """
    n, size = x.shape[1], x.shape[2]
    line, total = np.empty(size, np.float32), np.empty(size, np.float32)
    count = np.float32(len(left) + 1)
    for b in range(first, last):
        for y in range(n):
            for i in range(size):
                total[i] = np.float32(0)
            for zoom in range(len(left)):
                near, far, t = x[b, left[zoom, y]], x[b, right[zoom, y]], weight[zoom, y]
                for i in range(size):
                    line[i] = (far[i] - near[i]) * t + near[i]
                at, to, part = beside[zoom, 0], beside[zoom, 1], along[zoom]
                for i in range(size):
                    a = line[at[i]]
                    total[i] += (line[to[i]] - a) * part[i] + a
            for i in range(size):
                value = (x[b, y, i] + total[i]) / count
                value = np.float32(0) if value < 0 else value
                value = np.float32(1) if value > 1 else value
                out[b, y, i] = np.uint8(np.int32(value * np.float32(255)))


@compiled
def _fold(i, n, mirror101):
    """``elastic.fold`` of one index."""
    if 0 <= i < n:
        return i
    period = max(2 * n - 2, 1) if mirror101 else 2 * n
    i = i % period
    return i if i < n else (period if mirror101 else period - 1) - i


@compiled
def _read(x, row, column, mirror101, out):
    """float32 [n, n, 3] at one float64 position, interpolated in float64, into ``out`` float32 [3]."""
    n = x.shape[0]
    top, left = np.floor(row), np.floor(column)
    fy, fx = row - top, column - left
    y0, y1 = _fold(np.int64(top), n, mirror101), _fold(np.int64(top) + 1, n, mirror101)
    x0, x1 = _fold(np.int64(left), n, mirror101), _fold(np.int64(left) + 1, n, mirror101)
    for c in range(3):
        a, b = np.float64(x[y0, x0, c]), np.float64(x[y1, x0, c])
        upper = (np.float64(x[y0, x1, c]) - a) * fx + a
        lower = (np.float64(x[y1, x1, c]) - b) * fx + b
        out[c] = np.float32((lower - upper) * fy + upper)


@compiled
def _affine(first, last, x, matrix, out):
    n = x.shape[1]
    for b in range(first, last):
        m = matrix[b]
        for i in range(n):
            for j in range(n):
                column = m[0, 0] * j + m[0, 1] * i + m[0, 2]
                row = m[1, 0] * j + m[1, 1] * i + m[1, 2]
                _read(x[b], row, column, True, out[b, i, j])


@compiled
def _displace(first, last, x, shifts, alpha, out):
    n = x.shape[1]
    value = np.empty(3, np.float32)
    for b in range(first, last):
        for i in range(n):
            for j in range(n):
                row = i + np.float64(np.float32(shifts[1, b, i, j] * alpha))
                column = j + np.float64(np.float32(shifts[0, b, i, j] * alpha))
                _read(x[b], row, column, False, value)
                for c in range(3):
                    level = value[c]
                    level = np.float32(0) if level < 0 else level
                    level = np.float32(1) if level > 1 else level
                    out[b, i, j, c] = np.uint8(np.int32(level * np.float32(255)))


@compiled
def _flakes(first, last, normal, left, weight, std, mean, threshold, out):
    """uint8 [B, n, n] of normals float64 [B, n, n], zoomed: 0 below the threshold."""
    n = normal.shape[1]
    line = np.empty(n)
    for b in range(first, last):
        for y in range(n):
            top, t = left[y], weight[y]
            near, far = normal[b, top], normal[b, min(top + 1, n - 1)]
            for i in range(n):
                a = near[i] * std + mean
                line[i] = (far[i] * std + mean - a) * t + a
            for i in range(n):
                a = line[left[i]]
                value = (line[min(left[i] + 1, n - 1)] - a) * weight[i] + a
                out[b, y, i] = _level(0.0 if value < threshold else value)


def zoom(x: Tensor, left: Tensor, weight: Tensor) -> Tensor:
    """``zoom.zoom_reference``."""
    batch, n, _, channels = x.shape
    near = as_array(left.long())
    far = np.minimum(near + 1, n - 1)
    channel = np.arange(channels)
    beside = np.stack([(place[..., None] * channels + channel).reshape(len(near), -1) for place in (near, far)], 1)
    along = np.repeat(as_array(weight), channels, 1)
    out = torch.empty(x.shape, dtype=torch.uint8)
    source, target = (as_array(t).reshape(batch, n, -1) for t in (x, out))
    tables = near, far, beside.astype(np.int32), as_array(weight), along
    run(_zooms, batch, source, *tables, target, cost=1.5 * x.numel() * len(near))
    return out


def affine(x: Tensor, matrix: Tensor) -> Tensor:
    """``elastic.warp_reference``."""
    out = torch.empty(x.shape, dtype=torch.float32)
    run(_affine, len(x), as_array(x), as_array(matrix), as_array(out), cost=4 * x.numel())
    return out


def displace(x: Tensor, shifts: Tensor, alpha: Tensor) -> Tensor:
    """``elastic.displace_reference``."""
    out = torch.empty(x.shape, dtype=torch.uint8)
    run(_displace, len(x), as_array(x), as_array(shifts), float(alpha), as_array(out), cost=4 * x.numel())
    return out


def flakes(normal: Tensor, left: Tensor, weight: Tensor, law: Tensor) -> Tensor:
    """``snow.flakes_reference``."""
    out = torch.empty((*normal.shape, 1), dtype=torch.uint8)
    target, places = as_array(out)[..., 0], (as_array(left.long()), as_array(weight))
    run(_flakes, len(normal), as_array(normal.double()), *places, *law.tolist(), target, cost=3 * normal.numel())
    return out
