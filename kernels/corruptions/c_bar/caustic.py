"""caustic_refraction: the image seen through rippled water, with the light that the ripples gather.

    c        caustics at the pixel: |1.17 - ((1 + sum of 1 / length over five warps) / 5)^1.4|^8, clipped to [0, 1]
    normal   (right - left, down - up, 1) of c smoothed by a Gaussian of sigma 1, normalized
    out      x at the pixel moved by n level / 20 times the refracted ray (index of refraction 4, rounded to three
             digits), bilinear, black outside, plus level / 5 times ((down - up) - (right - left))

numpy 1 computes the interpolation in float32 where all four pixels lie inside the image, else in float64. The published
code was written for it, and so is this formula.

Bytes per value: 1 + 1, and about a dozen float64 fields in between. Last measured: not yet measured.

Source: Mintun, Kirillov and Xie (NeurIPS 2021), and its generation script.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.corruptions.c_bar.common import between, per_image, rows_and_columns, uniforms
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.gaussian import filter_field
from fastreg.kernels.corruptions.pixels import unit
from fastreg.kernels.corruptions.table import Corruption

_LUMA = (0.2126, 0.7152, 0.0722)
_REFRACTION = 4.0


def caustic_refraction(images: Tensor, level: float, fields: dict) -> Tensor:
    n = images.shape[1]
    time, size = per_image(fields, "time", images.device), per_image(fields, "size", images.device)
    light = filter_field(_caustics(n, time, size), 1.0, "mirror")
    light = light * _LUMA[0] + light * _LUMA[1] + light * _LUMA[2]
    padded = torch.nn.functional.pad(light, (1, 1, 1, 1))
    across = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    along = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down, right = _refract(across, along, level * 0.5 * n / 10)
    row, column = rows_and_columns(n, images.device)
    out, inside = _bilinear(unit(images, torch.float32), row + down, column + right)
    amount = level * 2.0 / 10
    for slope in (-along, across):
        lit = slope[..., None] * amount
        out = torch.where(inside, (out.float() + lit.float()).double(), out + lit)
    return (out.clamp(0, 1) * 255).to(torch.uint8)


def _caustics(n: int, time: Tensor, size: Tensor) -> Tensor:
    """float64 [B, n, n] in [0, 1]."""
    row, column = rows_and_columns(n, time.device)
    p0, p1 = (torch.remainder(at / size, 1) * 6.28318530718 - 250 for at in (row + 0 * column, column + 0 * row))
    i0, i1, total = p0, p1, torch.ones_like(p0)
    for step in range(5):
        t = time * (1.0 - 3.5 / (step + 1))
        i0, i1 = (
            p0 + (torch.cos(t - i0) + torch.sin(t + i1)),
            p1 + (torch.sin(t - i1) + torch.cos(t + i0)),
        )
        length = torch.sqrt((p0 / (torch.sin(i0 + t) / 0.005)) ** 2 + (p1 / (torch.cos(i1 + t) / 0.005)) ** 2)
        total = total + 1 / length
    return ((1.17 - (total / 5) ** 1.4).abs() ** 8).clamp(0, 1)


def _refract(across: Tensor, along: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """How far a ray through the surface moves, in pixels to three digits; 0 where the surface is flat."""
    norm = torch.sqrt(across**2 + along**2 + 1)
    x, y, z = across / norm, along / norm, 1 / norm
    flat = z >= 1 - 1e-3
    angle = torch.asin(torch.sin(torch.acos(z)) / _REFRACTION)
    slope = torch.sqrt(x**2 + y**2)
    push = torch.cos(angle) - z / torch.where(flat, 1.0, slope) * torch.sin(angle)
    return tuple(torch.where(flat, 0.0, torch.round(way * push * scale, decimals=3)) for way in (x, y))  # type: ignore[return-value]


def _bilinear(x: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """float64 [B, n, n, 3] of ``x`` float32 between its pixels, 0 outside; and where all four pixels are inside."""
    batch, n = x.shape[:2]
    top, left = torch.floor(row), torch.floor(column)
    weights = {
        (0, 0): (1.0 - column + left), (0, 1): (1.0 - (left + 1) + column),
        "above": (1.0 - row + top), "below": (1.0 - (top + 1) + row),
    }  # fmt: skip

    def pixel(down: int, right: int) -> tuple[Tensor, Tensor]:
        i, j = top.long() + down, left.long() + right
        here = (i >= 0) & (i < n) & (j >= 0) & (j < n)
        at = (i.clamp(0, n - 1) * n + j.clamp(0, n - 1)).flatten(1)[..., None].expand(-1, -1, 3)
        values = x.reshape(batch, -1, 3).gather(1, at).view(batch, n, n, 3)
        return torch.where(here[..., None], values, 0.0), here[..., None]

    halves, whole = [], []
    for down in (0, 1):
        (a, a_here), (b, b_here) = pixel(down, 0), pixel(down, 1)
        half = a * weights[0, 0][..., None].float() + b * weights[0, 1][..., None].float()
        both = a_here & b_here
        weight = weights["below" if down else "above"][..., None]
        halves.append(torch.where(both, (half * weight.float()).double(), half.double() * weight))
        whole.append(both)
    inside = whole[0] & whole[1]
    single = (halves[0].float() + halves[1].float()).double()
    return torch.where(inside, single, halves[0] + halves[1]), inside


def draw_caustic_refraction(key: Key, n: int, level, images) -> dict:
    u = uniforms(key, "caustic_refraction", 2)
    return {"time": between(u[:, 0], 0.5, 2), "size": between(u[:, 1], 0.75 * n, 1.25 * n)}


ROWS = (
    Corruption(
        "caustic_refraction",
        caustic_refraction,
        draw_caustic_refraction,
        {"time": ("number", ()), "size": ("positive", ())},
    ),
)
