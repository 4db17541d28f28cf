"""Nearest shears and rotations on the compiled CPU route, by Pillow's fixed point: a pixel moves as three bytes."""

from __future__ import annotations

import math

import numpy as np

from fastreg.kernels.auto_augmentation.reference import fixed_point
from fastreg.kernels.compiled import compiled, run


@compiled
def _read(first, last, pixels, matrix, fill, out):
    height, width = pixels.shape[0], pixels.shape[1]
    for y in range(first, last):
        column, row = matrix[1] * y + matrix[2], matrix[4] * y + matrix[5]
        for x in range(width):
            i, j = row >> 16, column >> 16
            inside = 0 <= i < height and 0 <= j < width
            for c in range(3):
                out[y, x, c] = pixels[i, j, c] if inside else fill[c]
            column += matrix[0]
            row += matrix[3]


def nearest(pixels: np.ndarray, name: str, m: float, fill: list[int]) -> np.ndarray | None:
    """uint8 [H, W, 3] sheared or rotated; None where Pillow does not use fixed point."""
    matrix = None if name == "Rotate" and math.fmod(m, 90) == 0 else fixed_point(name, m, *pixels.shape[:2])
    if matrix is None:
        return None
    out = np.empty_like(pixels)
    source = pixels if pixels.flags.writeable else pixels.copy()  # Pillow's are not, and a kernel has one signature
    run(_read, len(pixels), source, np.array(matrix, np.int64), np.array(fill, np.uint8), out, cost=0)
    return out
