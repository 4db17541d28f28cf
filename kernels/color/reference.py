"""Color jitter in plain torch: the route of CPU tensors and of images that the kernels do not take."""

from __future__ import annotations

import torch
from torch import Tensor

GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def color_jitter_reference(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, lighting: Tensor | None = None
) -> Tensor:
    """``color_jitter`` on checked arguments."""
    added = added_levels(images, images.sum((1, 2), dtype=torch.int64), brightness, contrast, lighting)
    b, c, s = (factor[:, None, None] for factor in (brightness, contrast, saturation))
    red, green, blue = (images[..., k].float() for k in range(3))
    shade = (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue) * (b * c * (1 - s))
    out = torch.empty_like(images)
    for k, channel in enumerate((red, green, blue)):
        levels = channel * (b * c * s) + (shade + added[:, k, None, None])
        out[..., k] = levels.clamp_(0, 255).add_(0.5)  # the cast truncates
    return out


def added_levels(images: Tensor, sums: Tensor, brightness: Tensor, contrast: Tensor, lighting: Tensor | None) -> Tensor:
    """float32 [B, 3]: what an image's mean gray, from its ``sums`` int64 [B, 3], and the lighting add to its levels."""
    mean = (299 * sums[:, 0] + 587 * sums[:, 1] + 114 * sums[:, 2]).float() * gray_unit(images)
    constant = (brightness * (1 - contrast) * mean)[:, None]
    return constant.expand(-1, 3) if lighting is None else constant + 255 * lighting


def gray_unit(images: Tensor) -> float:
    """Factor from an image's sum of gray values, in thousandths, to its mean gray value."""
    return 1 / (1000 * images.shape[1] * images.shape[2])
