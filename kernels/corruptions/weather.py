"""snow, frost, fog.

Source: ImageNet-C's generation script; ImageMagick for the snow's motion blur, OpenCV for its grey.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions import filters, pixel_kernels, weather_kernels
from fastreg.kernels.corruptions.filters import on, quantise, unit
from fastreg.kernels.dispatch import use_triton


def snow(images: Tensor, parameter: tuple, fields: dict) -> Tensor:
    """A zoomed, thresholded and motion-blurred layer of normals and its half turn, added to a whitened image."""
    mean, std, zoom, threshold, radius, sigma, weight = parameter
    triton = use_triton(images)
    left, near = (on(values, images.device) for values in filters.zoom_grid(images.shape[1], zoom))
    law = on(np.array((std, mean, threshold), float), images.device)
    layer = (weather_kernels.flakes if triton else plain_flakes)(fields["normal"], left, near, law)
    layer = filters.motion_blur(layer, fields["angle"], radius, sigma)
    return (weather_kernels.snow if triton else plain_snow)(images, layer, weight)


def plain_flakes(normal: Tensor, left: Tensor, weight: Tensor, law: Tensor) -> Tensor:
    """uint8 [B,n,n,1] of normals [B,n,n]; ``law`` float64 [3]: std, mean, threshold. Zoomed as ``filters.zoomed``."""
    std, mean, threshold = law
    layer = filters.zoomed((normal.double() * std + mean)[..., None], left, weight)
    return quantise(layer.masked_fill_(layer < threshold, 0))


def plain_snow(images: Tensor, layer: Tensor, weight: float) -> Tensor:
    """uint8 [B,n,n,3] whitened by 1 - ``weight``, plus ``layer`` uint8 [B,n,n,1] and its half turn."""
    layer = unit(layer)
    x = unit(images, torch.float32)
    grey = (x[..., 0:1] * 0.299 + x[..., 1:2] * 0.587) + x[..., 2:3] * 0.114
    white = torch.maximum(x, grey.mul_(1.5).add_(0.5))
    x = x.mul_(weight).add_(white.mul_(1 - weight))
    return quantise(x.double().add_(layer).add_(layer.flip(1, 2)))


def frost(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """Weighted sum of image and photograph on the 0-255 scale."""
    if use_triton(images):
        batch, n = images.shape[:2]
        first = torch.arange(batch, device=images.device) * (n * n)
        stride = torch.full_like(first, n)
        return frosted(images, parameter, fields["texture"].contiguous(), first, stride)
    return plain_frost(images, parameter, fields["texture"])


def frosted(images: Tensor, parameter: tuple[float, float], pixels: Tensor, first: Tensor, stride: Tensor) -> Tensor:
    """``frost`` in one kernel, of the crops that begin at pixel ``first`` and have rows ``stride`` pixels apart."""
    return pixel_kernels.frost(images, pixels, first, stride, on(np.array(parameter, float), images.device))


def plain_frost(images: Tensor, parameter: tuple[float, float], texture: Tensor) -> Tensor:
    image_weight, frost_weight = parameter
    x = images.double().mul_(image_weight).add_(texture.double().mul_(frost_weight))
    return x.clamp_(0, 255).to(torch.uint8)


def fog(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """(x + amount P) m / (m + amount), m the image's brightest value."""
    plasma = fields["plasma"].contiguous()
    amount = on(np.array(parameter[:1], float), images.device)
    return (weather_kernels.fog if use_triton(images) else plain_fog)(images, plasma, amount)


def plain_fog(images: Tensor, plasma: Tensor, amount: Tensor) -> Tensor:
    brightest = images.amax((1, 2, 3), keepdim=True).double().div_(255)
    x = unit(images).add_(plasma.double()[..., None] * amount)
    return quantise(x.mul_(brightest).div_(brightest + amount))
