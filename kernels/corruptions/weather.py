"""snow, frost, fog.

Source: ImageNet-C's generation script; ImageMagick for the snow's motion blur, OpenCV for its grey.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.corruptions import filters
from fastreg.kernels.corruptions.filters import quantise, unit


def snow(images: Tensor, parameter: tuple, fields: dict) -> Tensor:
    """A zoomed, thresholded and motion-blurred layer of normals and its half turn, added to a whitened image."""
    mean, std, zoom, threshold, radius, sigma, weight = parameter
    layer = filters.zoom_centre((fields["normal"].double() * std + mean)[..., None], zoom)
    layer.masked_fill_(layer < threshold, 0)
    layer = unit(filters.motion_blur(quantise(layer), fields["angle"], radius, sigma))
    x = unit(images, torch.float32)
    grey = (x[..., 0:1] * 0.299 + x[..., 1:2] * 0.587) + x[..., 2:3] * 0.114
    white = torch.maximum(x, grey.mul_(1.5).add_(0.5))
    x = x.mul_(weight).add_(white.mul_(1 - weight))
    return quantise(x.double().add_(layer).add_(layer.flip(1, 2)))


def frost(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """Weighted sum of image and photograph on the 0-255 scale."""
    image_weight, frost_weight = parameter
    x = images.double().mul_(image_weight).add_(fields["texture"].double().mul_(frost_weight))
    return x.clamp_(0, 255).to(torch.uint8)


def fog(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """(x + amount P) m / (m + amount), m the image's brightest value."""
    amount, _ = parameter
    brightest = images.amax((1, 2, 3), keepdim=True).double().div_(255)
    x = unit(images).add_(fields["plasma"].double()[..., None] * amount)
    return quantise(x.mul_(brightest).div_(brightest + amount))
