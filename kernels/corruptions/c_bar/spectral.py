"""brownish_noise and blue_noise_sample: noise of a given power spectrum and random phases.

    spectrum(f) = power(f) exp(i phase(f)), the phases point-symmetric about the center
    noise = Re(ifft2(spectrum)) over its standard deviation
    brownish_noise     power 1 / (f^2 + 1), one noise per channel:  x + 6.4 level noise
    blue_noise_sample  power f:  x where noise > 0.3 level - 2.5, elsewhere black

Bytes per value: 1 + 1, and complex128 fields in between. Last measured: not yet measured.

Source: Mintun, Kirillov and Xie (NeurIPS 2021), and its generation script.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.c_bar.common import to_levels
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.pixels import on
from fastreg.kernels.corruptions.table import Corruption


def brownish_noise(images: Tensor, level: float, fields: dict) -> Tensor:
    noise = spectral_noise(fields["phase"], images.shape[1], brown=True)
    return to_levels(images + (level * 64 / 10) * noise.movedim(1, 3))


def blue_noise_sample(images: Tensor, level: float, fields: dict) -> Tensor:
    noise = spectral_noise(fields["phase"], images.shape[1], brown=False)
    return images * (noise > level * 3 / 10 - 2.5)[..., None]


def spectral_noise(phase: Tensor, n: int, *, brown: bool) -> Tensor:
    """float64 [..., n, n] of standard deviation 1 from phases [..., n * n // 2]."""
    lead, phase = phase.shape[:-1], phase.double()
    left = phase[..., : n * (n // 2)].reshape(*lead, n, n // 2)
    columns = [left, left.flip(-2, -1)]
    if n % 2:  # the middle column is symmetric itself
        column = phase[..., n * (n // 2) :]
        columns.insert(1, torch.cat((column, column.new_zeros(*lead, 1), column.flip(-1)), -1)[..., None])
    power = on(_power(n, brown), phase.device)
    spectrum = torch.polar(power.expand(*lead, n, n).contiguous(), torch.cat(columns, -1))
    noise = torch.fft.ifft2(torch.roll(spectrum, (n // 2, n // 2), (-2, -1))).real
    return noise / noise.std((-2, -1), correction=0, keepdim=True)


@lru_cache(maxsize=8)
def _power(n: int, brown: bool) -> np.ndarray:
    row, column = np.mgrid[:n, :n] - n / 2
    distance = np.sqrt(row**2 + column**2)
    return 1 / (distance**2 + 1) if brown else distance


def draw_brownish_noise(key: Key, n: int, level, images) -> dict:
    return {"phase": key.field("uniform", "brownish_noise", 3, n * n // 2).double() * (2 * math.pi)}


def draw_blue_noise_sample(key: Key, n: int, level, images) -> dict:
    return {"phase": key.field("uniform", "blue_noise_sample", n * n // 2).double() * (2 * math.pi)}


ROWS = (
    Corruption("blue_noise_sample", blue_noise_sample, draw_blue_noise_sample, {"phase": ("float", ("half",))}),
    Corruption("brownish_noise", brownish_noise, draw_brownish_noise, {"phase": ("float", (3, "half"))}),
)
