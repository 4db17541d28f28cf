"""contrast, brightness and saturate: a function of each pixel (and its image's mean). Exact in float64.

Source: ImageNet-C's generation script; scikit-image's HSV hexcone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.filters import on, quantise, unit

# which of (V, P, Q, T) each channel takes in the six sectors of the hexcone
_SECTORS = np.array(((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2)))


def contrast(images: Tensor, factor: float, fields: dict) -> Tensor:
    """(x - mean) * factor + mean, the mean per image and channel."""
    count = images.shape[1] * images.shape[2]
    mean = images.sum((1, 2), keepdim=True, dtype=torch.int64).double() / (255 * count)
    return quantise(unit(images).sub_(mean).mul_(factor).add_(mean))


def brightness(images: Tensor, shift: float, fields: dict) -> Tensor:
    """V + shift in HSV."""
    return _in_hsv(images, lambda s, v: (s, (v + shift).clamp_(0, 1)))


def saturate(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """S * factor + shift in HSV."""
    factor, shift = parameter
    return _in_hsv(images, lambda s, v: ((s * factor + shift).clamp_(0, 1), v))


def _in_hsv(images: Tensor, change) -> Tensor:
    """Apply ``change(s, v) -> (s, v)`` in HSV, with scikit-image's formulas in its order, float64."""
    r, g, b = unit(images).unbind(-1)
    v = torch.maximum(torch.maximum(r, g), b)
    delta = v - torch.minimum(torch.minimum(r, g), b)
    grey = delta == 0
    delta_or_1 = delta.masked_fill(grey, 1)
    s = (delta / v).masked_fill_(grey, 0)
    sextant = torch.where(g == v, (b - r).div_(delta_or_1).add_(2), (g - b).div_(delta_or_1))
    sextant = torch.where(b == v, (r - g).div_(delta_or_1).add_(4), sextant)
    hue = (sextant / 6).remainder_(1).masked_fill_(grey, 0).mul_(6)

    s, v = change(s, v)
    sector = hue.floor()
    f = hue - sector
    p = v * (1 - s)
    q = v * (1 - f * s)
    t = v * (1 - (1 - f) * s)
    choices = quantise(torch.stack((v, p, q, t), -1))
    table = on(_SECTORS, images.device)
    return choices.gather(-1, table[sector.long() % 6])
