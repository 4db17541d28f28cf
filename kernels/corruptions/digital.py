"""pixelate and jpeg_compression, bit-equal to Pillow's BOX resize and JPEG. Source: ImageNet-C's generation script."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions import digital_kernels
from fastreg.kernels.corruptions.filters import on
from fastreg.kernels.dispatch import use_triton
from fastreg.kernels.jpeg import jpeg_round_trip


@lru_cache(maxsize=64)
def box_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Pillow's BOX filter along one line: first source index and number of source pixels, int64 [target] each.

    Pixel x of the source counts for output j when -1/2 < (x - centre + 1/2) / scale <= 1/2, centre = (j + 1/2) source
    / target, scale = max(source / target, 1). Pixels on the border of the box are decided by rounding, so the float64
    operations are Pillow's, in its order, with its window of candidates.
    """
    step = source / target
    scale = max(step, 1.0)
    x = np.arange(source)[None]
    centre = ((np.arange(target) + 0.5) * step)[:, None]
    place = (x - centre + 0.5) * (1.0 / scale)
    window = (x >= (centre - 0.5 * scale + 0.5).astype(np.int64)) & (x < (centre + 0.5 * scale + 0.5).astype(np.int64))
    taken = (place > -0.5) & (place <= 0.5) & window
    return taken.argmax(1), taken.sum(1)


def pixelate(images: Tensor, scale: float, fields: dict) -> Tensor:
    """BOX down to int(n * scale), BOX up again (which repeats pixels)."""
    side = images.shape[1]
    small = max(1, int(side * scale))
    if not use_triton(images):
        return pillow_pixelate(images, small)
    first, count = (taps[box_taps(small, side)[0]] for taps in box_taps(side, small))
    return digital_kernels.pixelate(images, on(first, images.device), on(count, images.device), int(count.max()))


def pillow_pixelate(images: Tensor, small: int) -> Tensor:
    """Pillow shrinks to ``small`` pixels a side, OpenCV repeats its pixels."""
    import cv2
    from PIL import Image

    side = images.shape[1]
    place = box_taps(small, side)[0]
    nearest = _is_nearest(small, side)
    out = torch.empty_like(images)
    for source, target in zip(images.numpy(), out.numpy()):
        shrunk = np.asarray(Image.fromarray(source).resize((small, small), Image.Resampling.BOX))
        if nearest:
            cv2.resize(shrunk, (side, side), dst=target, interpolation=cv2.INTER_NEAREST_EXACT)
        else:
            np.take(np.take(shrunk, place, 1), place, 0, out=target)
    return out


@lru_cache(maxsize=64)
def _is_nearest(small: int, side: int) -> bool:
    """Whether OpenCV's nearest pixel is the one that BOX repeats; it was at every size tried."""
    import cv2

    line = np.arange(small, dtype=np.float32)[None]
    return np.array_equal(
        cv2.resize(line, (side, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0], box_taps(small, side)[0]
    )


def jpeg_compression(images: Tensor, quality: int, fields: dict) -> Tensor:
    """One JPEG round trip."""
    return jpeg_round_trip(images, quality)
