"""zoom_blur, and the centered zoom that snow shares: the mean of the image and its zooms, in float32 as published.

The ceil(n / zoom) pixels at the center are stretched to round(that zoom), corners aligned, and trimmed to n.

Bytes per value: 4 float32 loads per zoom, 5 bytes. Last measured: not yet measured.

Source: ImageNet-C's generation script; zoom of scipy.ndimage, order 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import levels, touched, variant
from fastreg.kernels.corruptions.layout import BLOCK, triton_block
from fastreg.kernels.corruptions.pixels import on, quantize, unit
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.registry import Op


def zoom_blur(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """``parameter``: end and step of the zooms."""
    x = unit(images, torch.float32)
    left, weight = zoom_grids(x.shape[1], parameter)
    return _mean(x, on(left, x.device), on(weight, x.device).float())


def zoom_grids(n: int, parameter: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """``zoom_grid`` of every zoom, [zooms, n]. Zooms are the published ``arange(1, end, step)``: its rounding lets 1.11
    into the first set, which so has 12."""
    end, step = parameter
    left, weight = zip(*(zoom_grid(n, zoom) for zoom in np.arange(1, end, step).tolist()))
    return np.stack(left), np.stack(weight)


def zoom_grid(n: int, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """Source of the n output pixels of a zoom: index of the left neighbor int64, weight of the right one float64."""
    side = int(np.ceil(n / zoom))
    stretched = round(side * zoom)
    trim = (stretched - n) // 2
    place = np.arange(trim, trim + n) * ((side - 1) / (stretched - 1) if stretched > 1 else 0.0)
    left = np.minimum(place.astype(np.int64), max(side - 2, 0))
    return left + (n - side) // 2, place - left


def read_between(x: Tensor, left: Tensor, weight: Tensor) -> Tensor:
    """[B, n, n, C] between ``left`` int64 and the next pixel, along both axes. a + (b - a) t keeps flat areas flat."""
    right = (left + 1).clamp_(max=x.shape[1] - 1)
    for axis, shape in ((1, (1, -1, 1, 1)), (2, (1, 1, -1, 1))):
        near = x.index_select(axis, left)
        x = x.index_select(axis, right).sub_(near).mul_(weight.view(shape)).add_(near)
    return x


def zoom_reference(x: Tensor, left: Tensor, weight: Tensor) -> Tensor:
    """uint8 levels of the mean of float32 [B, n, n, 3] and its zooms. ``left`` int64 and ``weight`` float32 [zooms, n]
    are the position that each output row and column reads."""
    total = torch.zeros_like(x)
    for index, t in zip(left, weight):
        total.add_(read_between(x, index, t))
    return quantize((x + total).div_(len(left) + 1))


@triton.jit
def zoom_kernel(
    x_ptr,  # float32 [B, n, n, 3] in [0, 1]
    out_ptr,  # uint8
    left_ptr,  # int32 [zooms, n]
    weight_ptr,  # float32 [zooms, n]
    n,
    zooms,
    BLOCK: tl.constexpr,
):
    value, live, y, x, c, first = triton_block(n, 3, BLOCK)
    image = x_ptr + first + c
    total = tl.zeros([BLOCK], tl.float32)
    for z in range(zooms):
        top = tl.load(left_ptr + z * n + y, mask=live, other=0)
        left = tl.load(left_ptr + z * n + x, mask=live, other=0)
        down = tl.load(weight_ptr + z * n + y, mask=live, other=0.0)
        right = tl.load(weight_ptr + z * n + x, mask=live, other=0.0)
        below = tl.minimum(top + 1, n - 1)
        beside = tl.minimum(left + 1, n - 1)
        a = tl.load(image + (top * n + left) * 3, mask=live, other=0.0)
        b = tl.load(image + (top * n + beside) * 3, mask=live, other=0.0)
        a += (tl.load(image + (below * n + left) * 3, mask=live, other=0.0) - a) * down
        b += (tl.load(image + (below * n + beside) * 3, mask=live, other=0.0) - b) * down
        total += a + (b - a) * right
    mean = tl.math.div_rn(tl.load(x_ptr + first + value, mask=live, other=0.0) + total, (zooms + 1).to(tl.float32))
    level = tl.minimum(tl.maximum(mean, 0.0), 1.0) * 255.0
    tl.store(out_ptr + first + value, level.to(tl.int32).to(tl.uint8), mask=live)


def zoom_triton(x: Tensor, left: Tensor, weight: Tensor) -> Tensor:
    """``zoom_reference`` in one launch."""
    batch, n = x.shape[:2]
    out = torch.empty_like(x, dtype=torch.uint8)
    grid = (triton.cdiv(n * n * 3, BLOCK), batch)
    zoom_kernel[grid](x, out, left.int(), weight, n, len(left), BLOCK=BLOCK, enable_fp_fusion=False)
    return out


_mean = routed(zoom_triton, "warp.zoom", zoom_reference)
ROWS = (Corruption("zoom_blur", zoom_blur),)


def _example(device="cpu", small: bool = True) -> dict[str, Any]:
    x = unit(levels(device, small), torch.float32)
    left, weight = zoom_grids(x.shape[1], (1.16, 0.04 if small else 0.01))
    return {"x": x, "left": on(left, x.device), "weight": on(weight, x.device).float()}


OPS = (
    Op(
        "zoom_mean", zoom_triton, zoom_reference, _example, touched,
        (variant("zoom_mean", zoom_kernel, BLOCK, types={"x_ptr": "*fp32"}),), compiled=_mean,
    ),
)  # fmt: skip
