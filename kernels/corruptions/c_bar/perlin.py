"""perlin_noise: five octaves of Perlin's gradient noise, blended over the image.

    turbulence(p) = sum over f = 1, 2, 4, 8, 16 of |noise(f p)| / f,  p = pixel / (n / 7)
    out = (1 - a) x + 255 a clip(turbulence / 2 + 1/2, 0, 1),  a = level / 20

A permutation of 256 numbers assigns one of 256 gradients to each point of the lattice. The permutation is that of the
published code, which swaps each entry with any other: not uniform. A gradient of length 0, on which the published code
divides zero by zero, is 0.

Bytes per value: 1 + 1, and float64 fields in between. Last measured: not yet measured.

Source: Mintun, Kirillov and Xie (NeurIPS 2021), and its generation script; Perlin, "An Image Synthesizer" (1985).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.corruptions.c_bar.common import rows_and_columns, to_levels
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.pixels import on
from fastreg.kernels.corruptions.table import Corruption

_LATTICE = 256  # points per side before the lattice repeats
_OFFSET = 16 * _LATTICE  # added to coordinates by the published code


def perlin_noise(images: Tensor, level: float, fields: dict) -> Tensor:
    n = images.shape[1]
    gradient = on(fields["gradient"].double(), images.device)
    length = torch.sqrt((gradient**2).sum(-1, keepdim=True))
    gradient = torch.where(length > 0, gradient / length, 0.0)
    permutation = on(fields["permutation"].long(), images.device)
    row, _ = rows_and_columns(n, images.device)
    at = row[:, 0] * (1 / (32 * n / 224))
    noise = _noise(at, gradient, permutation).abs()
    for frequency in (2, 4, 8, 16):
        noise += _noise(frequency * at, gradient, permutation).abs() / frequency
    noise = (0.5 * noise + 0.5).clamp(0, 1)[..., None]
    amount = level * 0.5 / 10
    return to_levels((images.float() * (1 - amount)).double() + 255 * amount * noise)


def _noise(at: Tensor, gradient: Tensor, permutation: Tensor) -> Tensor:
    """float64 [B, n, n] noise at points (at[i], at[j])."""
    t = at + _OFFSET
    low = t.long() % _LATTICE
    near = (low, (low + 1) % _LATTICE)  # the lattice points on both sides
    r = torch.remainder(t, 1)
    away = (r, r - 1)
    s = r**2 * (3 - 2 * r)

    def corner(i: int, j: int) -> Tensor:
        """The gradient of a corner times the way from it."""
        entry = (permutation.index_select(1, near[i])[:, :, None] + near[j]) % _LATTICE
        which = permutation.gather(1, entry.flatten(1)).view_as(entry)
        u = gradient[..., 0].gather(1, which.flatten(1)).view_as(entry)
        v = gradient[..., 1].gather(1, which.flatten(1)).view_as(entry)
        return away[i][:, None] * u + away[j] * v

    u, v = corner(0, 0), corner(1, 0)
    a = u + s[:, None] * (v - u)
    u, v = corner(0, 1), corner(1, 1)
    b = u + s[:, None] * (v - u)
    return 1.5 * (a + s * (b - a))


def draw_perlin_noise(key: Key, n: int, level, images) -> dict:
    swaps = philox.field(
        lambda words: philox.integers(words, _LATTICE), key.seed, key.samples, _LATTICE, key.severity, "perlin_swap"
    )
    permutation = np.tile(np.arange(_LATTICE), (len(swaps), 1))
    sample = np.arange(len(swaps))
    for i in range(_LATTICE - 1, -1, -1):
        j = swaps[:, i]
        permutation[sample, j], permutation[:, i] = permutation[:, i].copy(), permutation[sample, j]
    gradient = key.field("integer", "perlin_gradient", _LATTICE, 2, span=2 * _LATTICE)
    return {"gradient": gradient, "permutation": torch.from_numpy(permutation)}


ROWS = (
    Corruption(
        "perlin_noise",
        perlin_noise,
        draw_perlin_noise,
        {"gradient": ("number", (_LATTICE, 2)), "permutation": ("byte", (_LATTICE,))},
    ),
)
