"""gaussian_noise, shot_noise and speckle_noise: the image, then 30 independent draws on it.

    gaussian_noise  x + sigma N, in float32        speckle_noise  x + x sigma N
    shot_noise      Poisson(photons x) / photons

Bytes per value of a frame: 1, and the field's 4 (2 for counts). Last measured: not yet measured.

Source: ImageNet-P's generation script.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.corruptions import noise
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.pixels import quantize, unit
from fastreg.kernels.perturbations.constants import NOISE_FRAMES
from fastreg.kernels.perturbations.view import View

DRAWS = NOISE_FRAMES - 1
MOST_PHOTONS = 500  # at full white, of one table of Poisson thresholds


def draw_normals(key: Key, operation: str, view: View, strength: float) -> dict[str, Tensor]:
    return {"normal": key.field("normal", operation, DRAWS, view.size, view.size, 3)}


def draw_counts(key: Key, operation: str, view: View, photons: int) -> dict[str, Tensor]:
    """Counts by inversion. Above 500 photons the sum of two draws of half the rate, which has the same law."""
    parts = -(-photons // MOST_PHOTONS)
    shape = (parts, DRAWS, view.size, view.size, 3)
    levels = view.squares[:, None, None].expand(-1, parts, DRAWS, -1, -1, -1).contiguous()
    counts = key.field("poisson", operation, *shape, span=photons // parts, levels=levels)
    return {"counts": counts.sum(1, dtype=torch.int16)}


def gaussian_noise(view: View, sigma: float, fields: dict[str, Tensor]) -> Tensor:
    x = unit(view.squares, torch.float32)[:, None]
    return _after(view.squares, quantize(fields["normal"].float() * sigma + x))


def speckle_noise(view: View, sigma: float, fields: dict[str, Tensor]) -> Tensor:
    x = unit(view.squares)[:, None]
    return _after(view.squares, quantize(fields["normal"].double().mul(sigma).mul_(x).add_(x)))


def shot_noise(view: View, photons: int, fields: dict[str, Tensor]) -> Tensor:
    counts = fields["counts"]
    return _after(view.squares, noise.shot_noise(counts, photons, {"counts": counts}))


def _after(first: Tensor, others: Tensor) -> Tensor:
    return torch.cat((first[:, None], others), 1)
