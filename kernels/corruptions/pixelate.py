"""pixelate: Pillow's BOX resize down to int(n scale) pixels and up again, bit-equal.

    mean of a box: (sum of pixels times round(2^22 / count) + 2^21) >> 22, across, then down

In the kernel each value finds its box, adds it up across and down as Pillow does, and is its mean.

Bytes per value: 2, and as many byte loads as a box has pixels (16 at a quarter of the side; neighbors share them in
cache). Last measured: not yet measured.

Source: ImageNet-C's generation script; Pillow's resize.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.examples import levels, touched, variant
from fastreg.kernels.corruptions.layout import BLOCK
from fastreg.kernels.corruptions.pixels import on
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton, use_triton
from fastreg.kernels.registry import Op


def pixelate(images: Tensor, scale: float, fields: dict) -> Tensor:
    small = max(1, int(images.shape[1] * scale))
    if not use_triton(images):
        return pixelate_reference(images, small)
    return pixelate_triton(images, **boxes(images, small))


def boxes(images: Tensor, small: int) -> dict[str, Any]:
    """First row and number of rows of each row's box, as ``pixelate_triton`` takes them."""
    n = images.shape[1]
    first, count = (taps[box_taps(small, n)[0]] for taps in box_taps(n, small))
    return {"first": on(first, images.device), "count": on(count, images.device), "most": int(count.max())}


@lru_cache(maxsize=64)
def box_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Pillow's BOX filter along one line: first source index and number of source pixels, int64 [target] each.

    Pixel x of the source belongs to output j when -1/2 < (x - center + 1/2) / scale <= 1/2, with center = (j + 1/2)
    source / target and scale = max(source / target, 1). Rounding decides about pixels on the border of the box, so the
    float64 operations are Pillow's, in its order, with its window of candidates.
    """
    step = source / target
    scale = max(step, 1.0)
    x = np.arange(source)[None]
    center = ((np.arange(target) + 0.5) * step)[:, None]
    place = (x - center + 0.5) * (1.0 / scale)
    window = (x >= (center - 0.5 * scale + 0.5).astype(np.int64)) & (x < (center + 0.5 * scale + 0.5).astype(np.int64))
    taken = (place > -0.5) & (place <= 0.5) & window
    return taken.argmax(1), taken.sum(1)


def pixelate_reference(images: Tensor, small: int) -> Tensor:
    """Pillow shrinks to ``small`` pixels a side, OpenCV repeats its pixels. Neither is needed down to half the side."""
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
    """uint8 [n, n, 4]: each pixel the mean of its box of one or two pixels a side. A mean is (a + b + 1) >> 1; where
    the box has one pixel, it is both a and b. Pixels move as words."""
    import cv2

    words = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0]
    for axis in (1, 0):
        a, b = (words.take(taps, axis).view(np.uint8) for taps in (first, last))
        words = ((a | b) - ((a ^ b) >> 1)).view(np.uint32)
    return words.take(place, 1).take(place, 0)[..., None].view(np.uint8)


@lru_cache(maxsize=64)
def _is_nearest(small: int, side: int) -> bool:
    """Whether OpenCV's nearest pixel is the one that BOX repeats. It was at every size tried."""
    import cv2

    line = np.arange(small, dtype=np.float32)[None]
    return np.array_equal(
        cv2.resize(line, (side, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0], box_taps(small, side)[0]
    )


@triton.jit
def pixelate_kernel(
    images_ptr,  # uint8 [B, n, n, 3]
    out_ptr,
    first_ptr,  # int32 [n]: first row or column of each one's box
    count_ptr,  # int32 [n]: rows or columns in it
    n,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = value < n * n * 3
    y = value // (n * 3)
    x = value // 3 % n
    c = value % 3
    start = tl.program_id(1).to(tl.int64) * (n * n * 3)
    top = tl.load(first_ptr + y, mask=live, other=0)
    high = tl.load(count_ptr + y, mask=live, other=1)
    left = tl.load(first_ptr + x, mask=live, other=0)
    wide = tl.load(count_ptr + x, mask=live, other=1)
    of_row = (4194304 + wide // 2) // wide  # 2 ** 22 over the count, rounded
    of_column = (4194304 + high // 2) // high
    total = tl.zeros([BLOCK], tl.int32)
    for i in tl.static_range(MOST):
        row = tl.zeros([BLOCK], tl.int32)
        for j in tl.static_range(MOST):
            place = ((top + i) * n + left + j) * 3 + c
            row += tl.load(images_ptr + start + place, mask=live & (i < high) & (j < wide), other=0).to(tl.int32)
        total += (row * of_row + 2097152) >> 22
    tl.store(out_ptr + start + value, ((total * of_column + 2097152) >> 22).to(tl.uint8), mask=live)


def pixelate_triton(images: Tensor, first: Tensor, count: Tensor, most: int) -> Tensor:
    """uint8 [B, n, n, 3] whose row and column i become the mean of ``count[i]`` from ``first[i]`` on, int [n].
    ``most``: the largest count."""
    batch, n = images.shape[:2]
    out = torch.empty_like(images)
    grid = (triton.cdiv(n * n * 3, BLOCK), batch)
    pixelate_kernel[grid](
        images, out, first.int(), count.int(), n, MOST=most, BLOCK=BLOCK, enable_fp_fusion=False
    )  # fmt: skip
    return out


ROWS = (Corruption("pixelate", pixelate),)


def _example(device="cpu", small: bool = True) -> dict[str, Any]:
    images = levels(device, small)
    return {"images": images, **boxes(images, int(images.shape[1] * 0.3))}


def _on_host(images: Tensor, first: Tensor, count: Tensor, most: int) -> Tensor:
    return pixelate_reference(images.cpu(), int(images.shape[1] * 0.3)).to(images.device)


OPS = (
    Op(
        "pixelate", pixelate_triton, _on_host, _example, touched,
        (variant("pixelate", pixelate_kernel, BLOCK, MOST=4),),
    ),
)  # fmt: skip
