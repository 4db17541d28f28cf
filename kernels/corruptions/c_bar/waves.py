"""single_frequency_greyscale, cocentric_sine_waves and plasma_noise: smooth patterns over the whole image.

    single_frequency_greyscale  x + 19.6 level sin(column f_0 + row f_1 + phase)
    cocentric_sine_waves        x + 12.8 level (((r + a sin(f angle)) mod w) / w - 1/2), r and angle about a center
    plasma_noise                (1 - 6.4 level / 255) x + 6.4 level p, p the sines of coordinates that are warped 4 to 6
                                times

Bytes per value: 1 + 1, and float64 fields of the image's pixels in between. Last measured: not yet measured.

Source: Mintun, Kirillov and Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption
Robustness" (NeurIPS 2021), and its generation script.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.c_bar.common import between, per_image, rows_and_columns, to_levels, uniforms
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.table import Corruption


def single_frequency_greyscale(images: Tensor, level: float, fields: dict) -> Tensor:
    row, column = rows_and_columns(images.shape[1], images.device)
    frequency = per_image(fields, "frequency", images.device)
    wave = torch.sin(column * frequency[..., 0] + row * frequency[..., 1] + per_image(fields, "phase", images.device))
    return to_levels(images + (level * 196 / 10) * wave[..., None])


def draw_single_frequency_greyscale(key: Key, n: int, level, images) -> dict:
    u = uniforms(key, "single_frequency_greyscale", 4)
    first = u[:, 0] * 2 * np.pi - np.pi
    pair = np.stack((first, (2 * u[:, 1] - 1) * np.abs(first)), 1)
    swapped = u[:, 2:3] < 0.5
    return {
        "frequency": torch.from_numpy(np.where(swapped, pair[:, ::-1], pair)),
        "phase": between(u[:, 3], 0, 2 * np.pi),
    }


def cocentric_sine_waves(images: Tensor, level: float, fields: dict) -> Tensor:
    row, column = rows_and_columns(images.shape[1], images.device)
    center, frequency, amplitude, width = (
        per_image(fields, name, images.device) for name in ("center", "frequency", "amplitude", "ring_width")
    )
    x, y = column - center[..., 0], row - center[..., 1]
    angle = torch.atan2(x, y) * frequency
    distance = torch.sqrt(x**2 + y**2) + torch.sin(angle) * amplitude
    ring = torch.remainder(distance, width) / width - 1 / 2
    return to_levels(images + (level * 128 / 10) * ring[..., None])


def draw_cocentric_sine_waves(key: Key, n: int, level, images) -> dict:
    u = uniforms(key, "cocentric_sine_waves", 5)
    return {
        "center": between(u[:, :2], 0, n),
        "frequency": between(u[:, 2], 0, 10),
        "amplitude": between(u[:, 3], 0, n / 10),
        "ring_width": between(1 - u[:, 4], 0, n / 10),  # never 0, which divides
    }


def plasma_noise(images: Tensor, level: float, fields: dict) -> Tensor:
    row, column = rows_and_columns(images.shape[1], images.device)
    time, iterations, sharpness, scale = (
        per_image(fields, name, images.device) for name in ("time", "iterations", "sharpness", "scale")
    )
    x, y = (column + 0 * row) / scale, (row + 0 * column) / scale
    inner, outer, divisor = 1.0, 1.0, torch.ones_like(sharpness)
    for step in range(6):
        a = torch.cos(y * inner + time / outer) / divisor
        b = torch.sin(x * inner + time / outer) / divisor
        warped = step < iterations
        x, y = torch.where(warped, x + (a - b * 0.3), x), torch.where(warped, y + (b + a * 0.3), y)
        inner, outer, divisor = inner * 1.93, outer * 1.15, divisor * (2.25 - sharpness)
    plasma = torch.stack((torch.sin(x - time), torch.sin((x + y + torch.sin(time)) * 0.5), torch.sin(y + time)), dim=-1)
    intensity = level * 64 / 10
    return to_levels((1 - intensity / 255) * images.double() + intensity * plasma)


def draw_plasma_noise(key: Key, n: int, level, images) -> dict:
    u = uniforms(key, "plasma_noise", 4)
    return {
        "time": between(u[:, 0], 0, 6 * math.pi),
        "iterations": torch.from_numpy((u[:, 1] * 3).astype(np.int64) + 4),
        "sharpness": between(u[:, 2], 0.5, 1),
        "scale": between(u[:, 3], 0.075 * n, 0.2 * n),
    }


_NUMBER = ("number", ())
ROWS = (
    Corruption(
        "single_frequency_greyscale",
        single_frequency_greyscale,
        draw_single_frequency_greyscale,
        {"frequency": ("number", (2,)), "phase": _NUMBER},
    ),
    Corruption(
        "cocentric_sine_waves",
        cocentric_sine_waves,
        draw_cocentric_sine_waves,
        {"center": ("number", (2,)), "frequency": _NUMBER, "amplitude": _NUMBER, "ring_width": ("positive", ())},
    ),
    Corruption(
        "plasma_noise",
        plasma_noise,
        draw_plasma_noise,
        {"time": _NUMBER, "iterations": ("count", ()), "sharpness": _NUMBER, "scale": ("positive", ())},
    ),
)
