"""Boxes of Cutout and CutMix, half-open, in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np


def clipped(y: np.ndarray, x: np.ndarray, height: Any, width: Any, size: tuple[int, int]) -> np.ndarray:
    """int32 [..., 4] y0, x0, y1, x1: ``height`` x ``width`` around (y, x), clipped at the border.

    Half a side is rounded down, so an odd side loses a pixel, as in the code of Cutout and CutMix.
    """
    y, x, half_y, half_x = np.broadcast_arrays(y, x, np.asarray(height) // 2, np.asarray(width) // 2)
    top, left = (y - half_y).clip(0, size[0]), (x - half_x).clip(0, size[1])
    bottom, right = (y + half_y).clip(0, size[0]), (x + half_x).clip(0, size[1])
    return np.stack((top, left, bottom, right), axis=-1).astype(np.int32)


def area(box: np.ndarray) -> np.ndarray:
    """Number of pixels of each box."""
    return (box[..., 2] - box[..., 0]).astype(np.int64) * (box[..., 3] - box[..., 1])
