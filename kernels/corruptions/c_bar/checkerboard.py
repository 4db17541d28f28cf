"""checkerboard_cutout: gray squares on the black fields of a turned checkerboard.

    (i, j) = the pixel turned by ``angle``, over the side of a square, truncated
    out = 128 where i and j have the same parity and the square is cut (its uniform number < level / 10), otherwise x

Squares left of or above the origin wrap around to the end of the grid, as negative indices do in the published code.

Bytes per value: 1 + 1, and float64 fields in between. Last measured: not yet measured.

Source: Mintun, Kirillov and Xie (NeurIPS 2021), and its generation script.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.c_bar.common import between, per_image, rows_and_columns, uniforms
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.pixels import on
from fastreg.kernels.corruptions.table import Corruption

_GRID = 40  # squares per side of the largest grid, 4 n pixels of squares of n / 10


def checkerboard_cutout(images: Tensor, level: float, fields: dict) -> Tensor:
    n = images.shape[1]
    row, column = rows_and_columns(n, images.device)
    angle, side = per_image(fields, "angle", images.device), per_image(fields, "side", images.device)
    x = (torch.cos(angle) * row + torch.sin(angle) * column) / side
    y = (-torch.sin(angle) * row + torch.cos(angle) * column) / side
    odd = torch.remainder(x, 2).long() != torch.remainder(y, 2).long()
    squares = torch.div(4 * n, side, rounding_mode="floor").long()
    i, j = (torch.where(k < 0, k + squares, k).clamp(0, _GRID - 1) for k in (x.long(), y.long()))
    uniform = on(fields["uniform"].double(), images.device).flatten(1)
    # the published grid holds squares x squares numbers, row by row
    chosen = uniform.gather(1, (i * squares + j).clamp_max(_GRID * _GRID - 1).flatten(1)).view_as(x)
    kept = odd | (chosen >= level * 1.0 / 10)
    return torch.where(kept[..., None], images, torch.full_like(images, 128))


def draw_checkerboard_cutout(key: Key, n: int, level, images) -> dict:
    u = uniforms(key, "checkerboard_cutout", 2)
    return {
        "angle": between(u[:, 0], 0, 2 * math.pi),
        "side": torch.from_numpy(np.maximum((u[:, 1] * 0.15 + 0.1) * n, 1)),
        "uniform": key.field("uniform", "checkerboard_grid", _GRID * _GRID),
    }


ROWS = (
    Corruption(
        "checkerboard_cutout",
        checkerboard_cutout,
        draw_checkerboard_cutout,
        {"angle": ("number", ()), "side": ("positive", ()), "uniform": ("float", (_GRID * _GRID,))},
    ),
)
