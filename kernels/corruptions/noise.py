"""gaussian_noise, shot_noise, impulse_noise, speckle_noise: independent per pixel and channel.

Source: ImageNet-C's generation script; scikit-image's random_noise for impulse_noise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.filters import on, quantise, unit


def gaussian_noise(images: Tensor, sigma: float, fields: dict) -> Tensor:
    """x + sigma N."""
    return quantise(unit(images).add_(_scaled(fields["normal"], sigma)))


def speckle_noise(images: Tensor, sigma: float, fields: dict) -> Tensor:
    """x + x sigma N."""
    x = unit(images)
    return quantise(x.add_(_scaled(fields["normal"], sigma).mul_(x)))


def _scaled(normal: Tensor, sigma: float) -> Tensor:
    """float64, rounded before it is added, as numpy does it: ``add_``'s alpha is one rounding for both."""
    return normal.to(torch.float64, copy=True).mul_(sigma)


def shot_noise(images: Tensor, photons: int, fields: dict) -> Tensor:
    """Poisson(photons x) / photons, the counts given: a table of the photons + 1 values there are."""
    counts = fields["counts"].to(torch.int32, copy=True).clamp_(0, photons)
    return on(photon_levels(photons), images.device).index_select(0, counts.view(-1)).view(images.shape)


def photon_levels(photons: int) -> np.ndarray:
    """uint8 [photons + 1]: the level of each count, white from ``photons`` on."""
    return (np.arange(photons + 1) / photons * 255).astype(np.uint8)


def impulse_noise(images: Tensor, share: float, fields: dict) -> Tensor:
    """Replaced by 255 (salt) or 0. Bits do what ``where`` would, several times as fast on a CPU."""
    replace, salt = (fields[name].to(torch.uint8).neg_() for name in ("replace", "salt"))  # 255 or 0
    return salt.bitwise_xor_(images).bitwise_and_(replace).bitwise_xor_(images)
