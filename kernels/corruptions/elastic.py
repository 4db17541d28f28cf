"""elastic_transform: a random affine warp, then a smooth random displacement field.

Source: ImageNet-C's generation script; OpenCV's warpAffine and scipy's map_coordinates. Two interpolations in turn,
both bilinear with a float32 result, as published.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions import filter_kernels
from fastreg.kernels.corruptions.filters import gaussian_field, on, quantise, unit
from fastreg.kernels.dispatch import use_triton


def elastic_transform(images: Tensor, parameter: tuple[float, float, float], fields: dict) -> Tensor:
    """Affine warp by ``corner_shift``, then displacement by ``dx``, ``dy`` smoothed with sigma and scaled by alpha."""
    alpha, sigma, _ = parameter
    warp, displace = (
        (filter_kernels.warp, filter_kernels.displace) if use_triton(images) else (plain_warp, plain_displace)
    )
    warped = warp(unit(images, torch.float32), affine_inverse(fields["corner_shift"], images.shape[1]))
    shifts = torch.stack((fields["dx"], fields["dy"])).double()
    return displace(warped, gaussian_field(shifts, sigma, "mirror", 3.0), on(np.array([alpha], float), images.device))


def plain_warp(x: Tensor, matrix: Tensor) -> Tensor:
    """float32 [B,n,n,3] read at ``matrix`` (x, y, 1), float64 [B,2,3]."""
    line = torch.arange(x.shape[1], device=x.device, dtype=torch.float64)
    column, row = (m[:, 0] * line + m[:, 1] * line[:, None] + m[:, 2] for m in matrix[..., None, None].unbind(1))
    return plain_bilinear(x, row, column, True)


def plain_displace(x: Tensor, shifts: Tensor, alpha: Tensor) -> Tensor:
    """Levels uint8 of float32 [B,n,n,3] read ``alpha`` times ``shifts`` float64 [2 (x, y),B,n,n] away."""
    line = torch.arange(x.shape[1], device=x.device, dtype=torch.float64)
    dx, dy = (shifts * alpha).float().double().unbind()
    return quantise(plain_bilinear(x, line[:, None] + dy, line + dx, False))


def affine_inverse(corner_shift: Tensor, n: int) -> Tensor:
    """float64 [B,2,3]: output (x, y, 1) to source (x, y) of the affine map that moves three corners by
    ``corner_shift`` [B,3,2]. The corners lie n // 3 from the centre n // 2: (+,+), (+,-), (-,-)."""
    centre, reach = n // 2, n // 3
    signs = on(np.array(((1, 1), (1, -1), (-1, -1)), np.float32), corner_shift.device)
    here = signs * reach + centre
    there = (here + corner_shift.float()).double()
    # Source = here_1 + (target - there_1) solved in the two edge vectors; a closed form needs no solver on the device.
    here = here.double()
    p, q = there[:, 0] - there[:, 1], there[:, 1] - there[:, 2]  # [B,2] moved edges
    u, v = here[0] - here[1], here[1] - here[2]  # [2] edges
    cross = p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]
    of_x = torch.stack((q[:, 1], -p[:, 1]), 1) / cross[:, None]  # coordinates of (1,0) in (p, q)
    of_y = torch.stack((-q[:, 0], p[:, 0]), 1) / cross[:, None]
    edges = torch.stack((u, v))  # [2 edges, 2 axes]
    columns = torch.stack((of_x @ edges, of_y @ edges), 2)  # [B, axis, x or y]
    offset = here[1] - (columns * there[:, 1, None, :]).sum(2)
    return torch.cat((columns, offset[:, :, None]), 2)


def fold(index: Tensor, n: int, mirror101: bool) -> Tensor:
    """int64 indices folded into [0,n), about the edge pixels (101) or the edges, as ``filters.border`` does."""
    period = max(2 * n - 2, 1) if mirror101 else 2 * n
    index = index.remainder(period)
    return torch.where(index < n, index, (period if mirror101 else period - 1) - index)


def plain_bilinear(x: Tensor, rows: Tensor, columns: Tensor, mirror101: bool) -> Tensor:
    """float32 [B,n,n,C] read at float64 places [B,n,n], interpolated in float64, folded at the border."""
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
