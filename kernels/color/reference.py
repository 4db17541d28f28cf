"""Color jitter in plain torch: the route of CPU tensors and of images that the kernels do not take."""

from __future__ import annotations

import torch
from torch import Tensor

GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def color_jitter_reference(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, lighting: Tensor | None = None
) -> Tensor:
    """``color_jitter`` on checked arguments."""
    sums = images.sum((1, 2), dtype=torch.int64)
    mean = (299 * sums[:, 0] + 587 * sums[:, 1] + 114 * sums[:, 2]).float() * gray_unit(images)
    b, c, s = (factor[:, None, None] for factor in (brightness, contrast, saturation))
    red, green, blue = (images[..., k].float() for k in range(3))
    shade = (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue) * (b * c * (1 - s))
    constant = b * (1 - c) * mean[:, None, None]
    out = torch.empty_like(images)
    for k, channel in enumerate((red, green, blue)):
        added = constant if lighting is None else constant + 255 * lighting[:, k, None, None]
        out[..., k] = (channel * (b * c * s) + (shade + added)).clamp_(0, 255).add_(0.5)  # the cast truncates
    return out


def gray_unit(images: Tensor) -> float:
    """Factor from an image's sum of gray values, in thousandths, to its mean gray value."""
    return 1 / (1000 * images.shape[1] * images.shape[2])
