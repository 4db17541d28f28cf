"""elastic_transform: a random affine warp, then a smooth random displacement field.

Two bilinear interpolations in turn, both in float64 with a float32 result, as published:

    warp      read at M (x, y, 1), M the map that moves three corners by ``corner_shift``, border reflect-101
    displace  read at (x, y) + alpha G(dx, dy), G a Gaussian of sigma, border reflect

Bytes per value: 4 float32 loads, 8 bytes. Last measured: not yet measured.

Source: ImageNet-C's generation script; warpAffine of OpenCV, map_coordinates of scipy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import levels, numbers, touched, uniform, variant
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.gaussian import filter_field
from fastreg.kernels.corruptions.layout import BLOCK, triton_block
from fastreg.kernels.corruptions.pixels import on, quantize, triton_level, unit
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.registry import Op


def elastic_transform(images: Tensor, parameter: tuple[float, float, float], fields: dict) -> Tensor:
    """``parameter``: alpha, sigma, reach of the corners."""
    alpha, sigma, _ = parameter
    warped = _warp(unit(images, torch.float32), affine_inverse(fields["corner_shift"], images.shape[1]))
    shifts = torch.stack((fields["dx"], fields["dy"])).double()
    return _displace(warped, filter_field(shifts, sigma, "mirror", 3.0), on(np.array([alpha], float), images.device))


def draw_elastic_transform(key: Key, n: int, parameter: tuple[float, float, float], images) -> dict:
    """Corners uniform within ``reach`` pixels, [3, (x, y)]; dx and dy uniform on (-1, 1), [(dx, dy), n, n]."""
    corners = key.field("uniform", "elastic_corners", 3, 2).mul_(2).sub_(1).mul_(parameter[2])
    shift = key.field("uniform", "elastic_shift", 2, n, n).mul_(2).sub_(1)
    return {"corner_shift": corners, "dx": shift[:, 0], "dy": shift[:, 1]}


def warp_reference(x: Tensor, matrix: Tensor) -> Tensor:
    """float32 [B, n, n, 3] read at ``matrix`` (x, y, 1), float64 [B, 2, 3]."""
    line = torch.arange(x.shape[1], device=x.device, dtype=torch.float64)
    column, row = (m[:, 0] * line + m[:, 1] * line[:, None] + m[:, 2] for m in matrix[..., None, None].unbind(1))
    return bilinear_reference(x, row, column, True)


def displace_reference(x: Tensor, shifts: Tensor, alpha: Tensor) -> Tensor:
    """uint8 levels of float32 [B, n, n, 3] read ``alpha`` float64 [1] times ``shifts`` float64 [2 (x, y), B, n, n]
    away."""
    line = torch.arange(x.shape[1], device=x.device, dtype=torch.float64)
    dx, dy = (shifts * alpha).float().double().unbind()
    return quantize(bilinear_reference(x, line[:, None] + dy, line + dx, False))


def affine_inverse(corner_shift: Tensor, n: int) -> Tensor:
    """float64 [B, 2, 3]: output (x, y, 1) to source (x, y) of the affine map that moves three corners by
    ``corner_shift`` [B, 3, 2]. The corners are n // 3 from the center n // 2: (+,+), (+,-), (-,-)."""
    center, reach = n // 2, n // 3
    signs = on(np.array(((1, 1), (1, -1), (-1, -1)), np.float32), corner_shift.device)
    here = signs * reach + center
    there = (here + corner_shift.float()).double()
    # Source = here_1 + (target - there_1) solved in the two edge vectors; a closed form needs no solver on the device.
    here = here.double()
    p, q = there[:, 0] - there[:, 1], there[:, 1] - there[:, 2]  # [B, 2] moved edges
    u, v = here[0] - here[1], here[1] - here[2]  # [2] edges
    cross = p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]
    of_x = torch.stack((q[:, 1], -p[:, 1]), 1) / cross[:, None]  # coordinates of (1,0) in (p, q)
    of_y = torch.stack((-q[:, 0], p[:, 0]), 1) / cross[:, None]
    edges = torch.stack((u, v))  # [2 edges, 2 axes]
    columns = torch.stack((of_x @ edges, of_y @ edges), 2)  # [B, axis, x or y]
    offset = here[1] - (columns * there[:, 1, None, :]).sum(2)
    return torch.cat((columns, offset[:, :, None]), 2)


def fold(index: Tensor, n: int, mirror101: bool) -> Tensor:
    """int64 indices folded into [0, n), about the edge pixels (101) or the edges, as ``pixels.border`` does."""
    period = max(2 * n - 2, 1) if mirror101 else 2 * n
    index = index.remainder(period)
    return torch.where(index < n, index, (period if mirror101 else period - 1) - index)


def bilinear_reference(x: Tensor, rows: Tensor, columns: Tensor, mirror101: bool) -> Tensor:
    """float32 [B, n, n, C] read at float64 positions [B, n, n], interpolated in float64, folded at the border."""
    batch, n, _, channels = x.shape
    top, left = rows.floor(), columns.floor()
    fy = (rows - top)[..., None]
    fx = (columns - left)[..., None].expand(x.shape).contiguous()  # used twice, and slow where it is repeated
    start = torch.arange(batch, device=x.device)[:, None, None] * (n * n)
    flat = x.reshape(-1, channels).double()
    row = [fold(top.long() + k, n, mirror101) * n + start for k in (0, 1)]
    column = [fold(left.long() + k, n, mirror101) for k in (0, 1)]

    def line(k: int) -> Tensor:
        near, far = (flat.index_select(0, (row[k] + column[j]).view(-1)).view(x.shape) for j in (0, 1))
        return far.sub_(near).mul_(fx).add_(near)

    upper = line(0)
    return line(1).sub_(upper).mul_(fy).add_(upper).float()


@triton.jit
def _folded(i, n, MIRROR101: tl.constexpr):
    """``fold`` of indices."""
    if MIRROR101:
        period = tl.maximum(2 * n - 2, 1)
        i = i % period
        i = tl.where(i < 0, i + period, i)
        return tl.where(i < n, i, period - i)
    else:
        period = 2 * n
        i = i % period
        i = tl.where(i < 0, i + period, i)
        return tl.where(i < n, i, period - 1 - i)


@triton.jit
def bilinear_kernel(
    x_ptr,  # float32 [B, n, n, 3]
    place_ptr,  # float64: the map [B, 2, 3], or the displacements (x, y) [2, B, n, n]
    alpha_ptr,  # float64 [1]: times the displacements
    out_ptr,  # float32 [B, n, n, 3], or uint8
    n,
    AFFINE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """AFFINE: read at a map of the position, folded about the edge pixels. Else: read at a displaced position, folded
    about the edges, and written as levels."""
    value, live, y, x, c, first = triton_block(n, 3, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    if AFFINE:
        m = place_ptr + image * 6
        y = y.to(tl.float64)
        x = x.to(tl.float64)
        row = tl.load(m + 3) * x + tl.load(m + 4) * y + tl.load(m + 5)
        column = tl.load(m) * x + tl.load(m + 1) * y + tl.load(m + 2)
    else:
        pixel = image * (n * n) + value // 3
        alpha = tl.load(alpha_ptr)
        along = tl.load(place_ptr + pixel, mask=live, other=0.0) * alpha
        down = tl.load(place_ptr + tl.num_programs(1).to(tl.int64) * (n * n) + pixel, mask=live, other=0.0) * alpha
        row = y.to(tl.float64) + down.to(tl.float32).to(tl.float64)
        column = x.to(tl.float64) + along.to(tl.float32).to(tl.float64)
    top = tl.floor(row)
    left = tl.floor(column)
    fy = row - top
    fx = column - left
    y0 = _folded(top.to(tl.int32), n, AFFINE) * n
    y1 = _folded(top.to(tl.int32) + 1, n, AFFINE) * n
    x0 = _folded(left.to(tl.int32), n, AFFINE)
    x1 = _folded(left.to(tl.int32) + 1, n, AFFINE)
    image = x_ptr + first + c
    a = tl.load(image + (y0 + x0) * 3, mask=live, other=0.0).to(tl.float64)
    b = tl.load(image + (y1 + x0) * 3, mask=live, other=0.0).to(tl.float64)
    a += (tl.load(image + (y0 + x1) * 3, mask=live, other=0.0).to(tl.float64) - a) * fx
    b += (tl.load(image + (y1 + x1) * 3, mask=live, other=0.0).to(tl.float64) - b) * fx
    a = (a + (b - a) * fy).to(tl.float32)
    tl.store(out_ptr + first + value, a if AFFINE else triton_level(a), mask=live)


def warp_triton(x: Tensor, matrix: Tensor) -> Tensor:
    """``warp_reference`` in one launch."""
    return _bilinear_triton(x, matrix.contiguous(), matrix, torch.float32)


def displace_triton(x: Tensor, shifts: Tensor, alpha: Tensor) -> Tensor:
    """``displace_reference`` in one launch."""
    return _bilinear_triton(x, shifts.contiguous(), alpha, torch.uint8)


def _bilinear_triton(x: Tensor, places: Tensor, alpha: Tensor, dtype: torch.dtype) -> Tensor:
    batch, n = x.shape[:2]
    out = torch.empty_like(x, dtype=dtype)
    bilinear_kernel[(triton.cdiv(n * n * 3, BLOCK), batch)](
        x, places, alpha, out, n, AFFINE=dtype == torch.float32, BLOCK=BLOCK, enable_fp_fusion=False
    )  # fmt: skip
    return out


_warp = routed(warp_triton, "warp.affine", warp_reference)
_displace = routed(displace_triton, "warp.displace", displace_reference)
_SHIFTS = {
    "corner_shift": ("float", (3, 2)),
    "dx": ("float", ("n", "n")),
    "dy": ("float", ("n", "n")),
}
ROWS = (Corruption("elastic_transform", elastic_transform, draw_elastic_transform, _SHIFTS),)


def _warp_example(device="cpu", small: bool = True) -> dict[str, Any]:
    x = unit(levels(device, small), torch.float32)
    corners = (uniform(device, len(x), 3, 2) - 0.5) * x.shape[1]
    return {"x": x, "matrix": affine_inverse(corners, x.shape[1])}


def _displace_example(device="cpu", small: bool = True) -> dict[str, Any]:
    x = unit(levels(device, small), torch.float32)
    shifts = uniform(device, 2, *x.shape[:3]).double() - 0.5
    return {"x": x, "shifts": shifts, "alpha": numbers(device, 2.0 * x.shape[1])}


_FLOATS = {"x_ptr": "*fp32", "out_ptr": "*fp32"}
OPS = (
    Op(
        "elastic_warp", warp_triton, warp_reference, _warp_example, touched,
        (variant("elastic_warp", bilinear_kernel, BLOCK, types=_FLOATS, AFFINE=True),), compiled=_warp,
    ),
    Op(
        "elastic_displace", displace_triton, displace_reference, _displace_example, touched,
        (variant("elastic_displace", bilinear_kernel, BLOCK, types={"x_ptr": "*fp32"}, AFFINE=False),),
        compiled=_displace,
    ),
)  # fmt: skip
