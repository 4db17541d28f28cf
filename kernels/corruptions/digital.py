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
    """Pillow shrinks to ``small`` pixels a side, OpenCV repeats its pixels; down to half the side neither is needed."""
    import cv2
    from PIL import Image

    side = images.shape[1]
    place = box_taps(small, side)[0]
    nearest = _is_nearest(small, side)
    first, count = box_taps(side, small)
    out = torch.empty_like(images)
    for source, target in zip(images.numpy(), out.numpy()):
        if count.max() <= 2:
            cv2.cvtColor(_paired(source, first, first + count - 1, place), cv2.COLOR_RGBA2RGB, dst=target)
            continue
        shrunk = np.asarray(Image.fromarray(source).resize((small, small), Image.Resampling.BOX))
        if nearest:
            wide = cv2.resize(shrunk, (side, small), interpolation=cv2.INTER_NEAREST_EXACT)
        else:
            wide = np.take(shrunk, place, 1)
        np.take(wide, place, 0, out=target, mode="clip")  # "raise" would fill a buffer first
    return out


def _paired(image: np.ndarray, first: np.ndarray, last: np.ndarray, place: np.ndarray) -> np.ndarray:
    """uint8 [n,n,4]: each pixel the mean of its box, which is one pixel or two a side. Both mean (a + b + 1) >> 1, the
    last being the first where there is one; pixels move as words."""
    import cv2

    words = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0]
    for axis in (1, 0):
        a, b = (words.take(taps, axis).view(np.uint8) for taps in (first, last))
        words = ((a | b) - ((a ^ b) >> 1)).view(np.uint32)
    return words.take(place, 1).take(place, 0)[..., None].view(np.uint8)


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
