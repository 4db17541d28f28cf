"""sparkles and inverse_sparkles: white stars of 50 to 199 rays, or a white image with a star cut out.

    f = clip((l^2 / (r^2 + 1e-4))^e (1 - (t - 1/2)^2), 0, 1): r the distance from the center, l the length of the ray at
    the pixel's angle, interpolated between two rays, t the position between them
    sparkles          x + f (255 - x), five stars of radius n level / 100 in turn, e = 1
    inverse_sparkles  255 + f (x - 255), one star of radius n / 4, e = 0.13 level

A ray is the radius times 1 + 0.25 times a standard normal, for sparkles at least 1 pixel.

Bytes per value: 1 + 1, and float64 fields in between. Last measured: not yet measured.

Source: Mintun, Kirillov and Xie (NeurIPS 2021), and its generation script.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.c_bar.common import between, rows_and_columns, to_levels, uniforms
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.pixels import on
from fastreg.kernels.corruptions.table import Corruption

_STARS = 5
_RAYS = (50, 200)  # number of rays: from, below
_MOST = _RAYS[1] - 1


def sparkles(images: Tensor, level: float, fields: dict) -> Tensor:
    radius = level * 0.1 / 10 * images.shape[1]
    x = images
    for star in range(_STARS):
        center, rays, normal = (on(fields[f], images.device)[:, star] for f in ("center", "rays", "normal"))
        lengths = (radius + 0.25 * radius * normal.double()).clamp_min(1)
        f = _star(images.shape[1], center.double(), rays.long(), lengths, 1.0)
        value = x.float().double()
        x = value + f * (255 - value)
    return to_levels(x)


def inverse_sparkles(images: Tensor, level: float, fields: dict) -> Tensor:
    radius = 0.25 * images.shape[1]
    center, rays, normal = (on(fields[f], images.device) for f in ("center", "rays", "normal"))
    lengths = radius + 0.25 * radius * normal.double()
    amount = 100 - level * 65 / 10
    f = _star(images.shape[1], center.double(), rays.long(), lengths, (100 - amount) / 50)
    return to_levels(255 + f * (images.double() - 255))


def _star(n: int, center: Tensor, rays: Tensor, lengths: Tensor, exponent: float) -> Tensor:
    """float64 [B, n, n, 1] share of a star. ``center`` [B, 2] row and column, ``rays`` [B], ``lengths`` [B, 199]."""
    row, column = rows_and_columns(n, center.device)
    y, x = row - center[:, 0][:, None, None], column - center[:, 1][:, None, None]
    squared = torch.sqrt(y**2 + x**2) ** 2
    turn = (torch.atan2(x, y) + math.pi) / (2 * math.pi) * rays[:, None, None]
    ray = turn.long()
    between_rays = turn - ray
    first = lengths.gather(1, (ray % rays[:, None, None]).flatten(1)).view_as(turn)
    second = lengths.gather(1, ((ray + 1) % rays[:, None, None]).flatten(1)).view_as(turn)
    length = first + between_rays * (second - first)
    bright = (length**2 / (squared + 1e-4)) ** exponent
    return ((1 - (between_rays - 0.5) ** 2) * bright).clamp(0, 1)[..., None]


def draw_sparkles(key: Key, n: int, level, images) -> dict:
    u = uniforms(key, "sparkles", 3 * _STARS)
    return {
        "center": between(u[:, : 2 * _STARS].reshape(-1, _STARS, 2), 0, n),
        "rays": _number_of_rays(u[:, 2 * _STARS :]),
        "normal": key.field("normal", "sparkles_rays", _STARS, _MOST),
    }


def draw_inverse_sparkles(key: Key, n: int, level, images) -> dict:
    u = uniforms(key, "inverse_sparkles", 3)
    return {
        "center": between(u[:, :2], 0.25 * n, 0.75 * n),
        "rays": _number_of_rays(u[:, 2]),
        "normal": key.field("normal", "inverse_sparkles_rays", _MOST),
    }


def _number_of_rays(uniform: np.ndarray) -> Tensor:
    return torch.from_numpy((uniform * (_RAYS[1] - _RAYS[0])).astype(np.int64) + _RAYS[0])


ROWS = (
    Corruption(
        "inverse_sparkles",
        inverse_sparkles,
        draw_inverse_sparkles,
        {"center": ("number", (2,)), "rays": ("rays", ()), "normal": ("float", (_MOST,))},
    ),
    Corruption(
        "sparkles",
        sparkles,
        draw_sparkles,
        {"center": ("number", (_STARS, 2)), "rays": ("rays", (_STARS,)), "normal": ("float", (_STARS, _MOST))},
    ),
)
