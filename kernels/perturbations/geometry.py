"""translate, rotate, tilt, scale, shear and zoom_blur: the whole image moved about its center, black outside.

    affine  x_in = a0 (x + 1/2) + a1 (y + 1/2) + a2        y_in = a3 (x + 1/2) + a4 (y + 1/2) + a5
    tilt    (x_in, y_in) = the plane turned about both axes, at a distance of the image's diagonal

Pillow's bilinear reading: float64, edge pixels repeated, truncated. OpenCV's (before version 5) for tilt: positions in
1/32 pixel, weights in 1/1024, rounded; taps outside are black. translate moves by whole pixels. zoom_blur is the mean
of the image and its zooms so far, in float32. The center of the affine frames is (w + 1) / 2, (h + 1) / 2, half a pixel
off, as in the torchvision of that time.

Bytes per value: 4 byte loads, 1 byte, and float64 positions in between. Last measured: not yet measured.

Source: ImageNet-P's generation script; torchvision 0.2.1, Pillow's Geometry.c, OpenCV 4's warpPerspective.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.pixels import on, quantize, unit
from fastreg.kernels.perturbations.constants import Sweep
from fastreg.kernels.perturbations.view import View

Matrix = Callable[[int, int, float], tuple[float, ...]]  # of height, width and the frame's value
VALUES = {"cpu": 2**18, "cuda": 2**26}  # per chunk
TAB = 32  # OpenCV's positions per pixel
BLOCK = 64  # columns between two restarts of OpenCV's positions


def affine(height: int, width: int, *, angle: float = 0.0, scale: float = 1.0, shear: float = 0.0) -> tuple[float, ...]:
    """The six coefficients of the inverse map. torchvision's arithmetic, in its order."""
    across, down = width * 0.5 + 0.5, height * 0.5 + 0.5
    turn, lean, inverse = math.radians(angle), math.radians(shear), 1.0 / scale
    d = math.cos(turn + lean) * math.cos(turn) + math.sin(turn + lean) * math.sin(turn)
    a, b, d_, e = (
        inverse / d * m for m in (math.cos(turn + lean), math.sin(turn + lean), -math.sin(turn), math.cos(turn))
    )
    return a, b, 0.0 + (a * -across + b * -down) + across, d_, e, 0.0 + (d_ * -across + e * -down) + down


def perspective(height: int, width: int, degrees: float) -> tuple[float, ...]:
    """The nine coefficients of the inverse map: OpenCV's inverse, from the adjugate."""
    turn, f = np.deg2rad(degrees), np.sqrt(width**2 + height**2)
    c, s = np.cos(turn), np.sin(turn)
    lift = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    turn_y = np.array([[c, 0, -s, 0], [0, 1, 0, 0], [s, 0, c, 0], [0, 0, 0, 1]])
    away = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, f], [0, 0, 0, 1]])
    project = np.array([[f, 0, width / 2, 0], [0, f, height / 2, 0], [0, 0, 1, 0]])
    (a, b, c), (d, e, f), (g, h, i) = (project @ away @ turn_x @ turn_y @ lift).tolist()
    scale = 1.0 / (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))
    adjugate = (
        *(e * i - f * h, c * h - b * i, b * f - c * e),
        *(f * g - d * i, a * i - c * g, c * d - a * f),
        *(d * h - e * g, b * g - a * h, a * e - b * d),
    )
    return tuple(entry * scale for entry in adjugate)


def rotate(view: View, angles: Sweep) -> Tensor:
    return _moved(view, lambda h, w, value: affine(h, w, angle=value), angles.values(), _pillow)


def scale(view: View, factors: Sweep) -> Tensor:
    return _moved(view, lambda h, w, value: affine(h, w, scale=value), factors.values(), _pillow)


def shear(view: View, angles: Sweep) -> Tensor:
    return _moved(view, lambda h, w, value: affine(h, w, shear=value), angles.values(), _pillow)


def tilt(view: View, angles: Sweep) -> Tensor:
    return _moved(view, perspective, angles.values(), _opencv)


def translate(view: View, shifts: Sweep) -> Tensor:
    return _moved(view, lambda h, w, value: (value,), shifts.values(), _shifted)


def zoom_blur(view: View, factors: Sweep) -> Tensor:
    first, *others = factors.values()
    assert first == 1  # the image itself, which is not resampled
    zoomed = _moved(view, lambda h, w, value: affine(h, w, scale=value), others, _pillow)
    total, frames = unit(view.squares, torch.float32), [view.squares]
    counts = on(np.arange(1, factors.frames + 1, dtype=np.float32), view.device)
    for i in range(1, factors.frames):
        total = total + unit(zoomed[:, i - 1].contiguous(), torch.float32)
        frames.append(quantize(total / counts[i]))
    return torch.stack(frames, 1)


def _moved(view: View, matrix: Matrix, values: list[float], read: Callable[..., Tensor]) -> Tensor:
    """uint8 [B, F, n, n, 3]: every image read by ``read`` through the map of every value, in chunks."""
    n, (rows, columns) = view.size, view.images.shape[1:3]
    if not len(view):
        return view.images.new_empty((0, len(values), n, n, 3))
    known = lru_cache(None)(lambda h, w: [matrix(h, w, value) for value in values])
    table = np.array(
        [
            (top, left, h, w, b * rows * columns, *coefficients)
            for b, ((top, left), (h, w)) in enumerate(zip(view.corners.tolist(), view.extents.tolist()))
            for coefficients in known(h, w)
        ],
        float,
    )
    pairs, pixels = on(table, view.device), view.images.view(-1, 3)
    step = max(1, VALUES["cuda" if view.images.is_cuda else "cpu"] // (n * n * 3))
    grid = torch.arange(n, dtype=torch.float64, device=view.device)
    chunks = []
    for chunk in pairs.split(step):
        top, left, h, w, first, *a = chunk[:, :, None, None].unbind(1)

        def at(row: Tensor, column: Tensor, first: Tensor = first, h: Tensor = h, w: Tensor = w) -> Tensor:
            """Levels int32 [k, n, n, 3] of pixels, those outside taken from the edge."""
            row, column = torch.minimum(row.clamp(min=0), h - 1), torch.minimum(column.clamp(min=0), w - 1)
            place = (first + row * columns + column).long()
            return pixels.index_select(0, place.view(-1)).view(*place.shape, 3).int()

        chunks.append(read(at, grid[:, None] + top, grid + left, h, w, *a))
    return torch.cat(chunks).view(len(view), len(values), n, n, 3)


def _pillow(at: Callable, y: Tensor, x: Tensor, h: Tensor, w: Tensor, *a: Tensor) -> Tensor:
    x, y = x + 0.5, y + 0.5
    column, row = a[0] * x + a[1] * y + a[2], a[3] * x + a[4] * y + a[5]
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    column, row = column - 0.5, row - 0.5
    left, top = column.floor(), row.floor()
    across, down = (column - left)[..., None], (row - top)[..., None]

    def line(row: Tensor) -> Tensor:
        near = at(row, left)
        return (at(row, left + 1) - near).double().mul_(across).add_(near)

    near = line(top)
    return (line(top + 1).sub_(near).mul_(down).add_(near) * inside[..., None]).int().to(torch.uint8)


def _opencv(at: Callable, y: Tensor, x: Tensor, h: Tensor, w: Tensor, *m: Tensor) -> Tensor:
    start = (x / BLOCK).floor() * BLOCK  # of OpenCV's block of columns, from which it counts on
    step = x - start
    depth = (m[6] * start + m[7] * y + m[8]) + m[6] * step
    inverse = torch.where(depth == 0, 0.0, torch.full_like(depth, TAB) / depth)
    column = (((m[0] * start + m[1] * y + m[2]) + m[0] * step) * inverse).round()
    row = (((m[3] * start + m[4] * y + m[5]) + m[3] * step) * inverse).round()
    left, top = (column / TAB).floor(), (row / TAB).floor()
    across, down = (column - left * TAB).int(), (row - top * TAB).int()
    total = torch.full((*column.shape, 1), TAB * TAB // 2, dtype=torch.int32, device=column.device)
    for r, share in ((top, TAB - down), (top + 1, down)):
        for c, part in ((left, TAB - across), (left + 1, across)):
            inside = (c >= 0) & (c < w) & (r >= 0) & (r < h)
            total = total + at(r, c) * (share * part * inside)[..., None]
    return (total >> 10).to(torch.uint8)


def _shifted(at: Callable, y: Tensor, x: Tensor, h: Tensor, w: Tensor, shift: Tensor) -> Tensor:
    column = x - shift
    inside = (column >= 0) & (column < w)
    return (at(y, column) * inside[..., None]).to(torch.uint8)
