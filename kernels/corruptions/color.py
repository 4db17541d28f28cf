"""contrast, brightness and saturate: a function of each pixel (and its image's mean). Exact in float64.

Source: ImageNet-C's generation script; scikit-image's HSV hexcone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions import pixel_kernels
from fastreg.kernels.corruptions.filters import on, quantise, unit
from fastreg.kernels.dispatch import use_triton

# which of (V, P, Q, T) each channel takes in the six sectors of the hexcone
_SECTORS = np.array(((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2)))


def contrast(images: Tensor, factor: float, fields: dict) -> Tensor:
    """(x - mean) * factor + mean, the mean per image and channel."""
    if use_triton(images):
        return pixel_kernels.contrast(images, on(np.array([factor], float), images.device))
    return plain_contrast(images, factor)


def plain_contrast(images: Tensor, factor: float | Tensor) -> Tensor:
    count = images.shape[1] * images.shape[2]
    mean = images.sum((1, 2), keepdim=True, dtype=torch.int64).double() / (255 * count)
    return quantise(unit(images).sub_(mean).mul_(factor).add_(mean))


def brightness(images: Tensor, shift: float, fields: dict) -> Tensor:
    """V + shift in HSV."""
    return in_hsv(images, (1.0, 0.0, shift))


def saturate(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """S * factor + shift in HSV."""
    return in_hsv(images, (*parameter, 0.0))


def in_hsv(images: Tensor, change: tuple[float, float, float]) -> Tensor:
    """S * change[0] + change[1] and V + change[2], clipped."""
    if use_triton(images):
        return pixel_kernels.hsv(images, on(np.array(change, float), images.device))
    return plain_hsv(images, change)


def plain_hsv(images: Tensor, change: tuple[float, float, float]) -> Tensor:
    """``in_hsv`` with scikit-image's formulas in its order, float64."""
    r, g, b = unit(images).unbind(-1)
    v = torch.maximum(torch.maximum(r, g), b)
    delta = v - torch.minimum(torch.minimum(r, g), b)
    grey = delta == 0
    delta_or_1 = delta.masked_fill(grey, 1)
    s = (delta / v).masked_fill_(grey, 0)
    sextant = torch.where(g == v, (b - r).div_(delta_or_1).add_(2), (g - b).div_(delta_or_1))
    sextant = torch.where(b == v, (r - g).div_(delta_or_1).add_(4), sextant)
    hue = (sextant / 6).remainder_(1).masked_fill_(grey, 0).mul_(6)

    factor, addend, shift = change
    if (factor, addend) != (1, 0):
        s = s.mul_(factor).add_(addend).clamp_(0, 1)
    if shift:
        v = (v + shift).clamp_(0, 1)
    sector = hue.floor()
    f = hue - sector
    p = v * (1 - s)
    q = v * (1 - f * s)
    t = v * (1 - (1 - f) * s)
    choices = quantise(torch.stack((v, p, q, t), -1))
    table = on(_SECTORS, images.device)
    return choices.gather(-1, table[sector.long() % 6])
