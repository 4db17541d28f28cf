"""Crop boxes by torchvision's rules, drawn from each sample's own Philox key."""

from __future__ import annotations

import numpy as np

from fastreg.kernels import philox

TRIES = 10
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
_LOG_RATIO = np.log(RATIO)
RESIZE = 256 / 224  # shorter side after the evaluation resize, as a multiple of the center crop's side


def random_boxes(seed: int, indices: np.ndarray, epoch: int, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Random-resized-crop boxes (Inception crop, torchvision's rule).

    Ten tries with area uniform in 8-100 % and log-uniform aspect ratio 3/4-4/3, then the largest centered box within
    the ratio. Try t of a sample reads the four words of element t: area, ratio, top, left.

    Args:
        seed: Key of the draws.
        indices: int [B], sample indices, or their keys (``philox.sample_keys``).
        epoch: Epoch, which enters the key.
        heights, widths: int [B], image sides in pixels.

    Returns:
        int64 [B, 4]: top, left, height, width in pixels.
    """
    indices, heights, widths = (np.asarray(x, np.int64) for x in (indices, heights, widths))
    words = philox.words(seed, np.arange(TRIES), indices[:, None], epoch, "crop")  # all tries at once: few, wide passes
    u = philox.uniform(words[..., :2]).astype(np.float64)
    area = (heights * widths)[:, None] * (SCALE[0] + (SCALE[1] - SCALE[0]) * u[..., 0])
    ratio = np.exp(_LOG_RATIO[0] + (_LOG_RATIO[1] - _LOG_RATIO[0]) * u[..., 1])
    w, h = np.rint(np.sqrt(area * ratio)).astype(np.int64), np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (w > 0) & (w <= widths[:, None]) & (h > 0) & (h <= heights[:, None])
    rows = np.flatnonzero(fits.any(1))
    first = rows, fits[rows].argmax(1)
    side = np.stack([h[first], w[first]], 1)
    corner = philox.integers(words[first][:, 2:], np.stack([heights, widths], 1)[rows] - side + 1)
    boxes = _centered(heights, widths)
    boxes[rows] = np.concatenate([corner, side], 1)
    return boxes


def _centered(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    w = np.minimum(widths, np.rint(heights * RATIO[1]).astype(np.int64))
    h = np.minimum(heights, np.rint(widths / RATIO[0]).astype(np.int64))
    return np.stack([(heights - h) // 2, (widths - w) // 2, h, w], 1)


def shift_boxes(seed: int, indices: np.ndarray, epoch: int, side: tuple[int, int], pad: int = 4) -> np.ndarray:
    """CIFAR's pad-and-crop as a shifted window of the canvas's own size: int64 [B, 4], top and left in [-pad, pad]."""
    words = philox.words(seed, 0, np.asarray(indices), epoch, "crop")
    shift = philox.integers(words[..., :2], 2 * pad + 1) - pad
    return np.concatenate([shift, np.broadcast_to(np.asarray(side, np.int64), shift.shape)], 1)


def resized(height: int, width: int, size: int, resize: float = RESIZE) -> tuple[int, int]:
    """(height, width) after the evaluation resize: shorter side ``round(size * resize)``, the longer one truncated."""
    short = round(size * resize)
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


def center(height: int, width: int, size: int) -> tuple[int, int]:
    """(top, left) of the centered square of ``size``, rounded half to even as torchvision does."""
    return round((height - size) / 2), round((width - size) / 2)


def center_box(height: int, width: int, size: int, resize: float = RESIZE) -> tuple[int, int, int, int]:
    """The region of the stored image that the evaluation protocol shows: (top, left, height, width), whole pixels.

    For decoders that cut before they resize; the cut is the protocol's to within half a stored pixel.
    """
    h, w = resized(height, width, size, resize)
    top, left = center(h, w, size)
    y, x = height / h, width / w
    return round(top * y), round(left * x), min(height, round(size * y)), min(width, round(size * x))
