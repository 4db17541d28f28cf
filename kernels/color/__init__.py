"""Colour jitter and PCA lighting of the ImageNet recipe, uint8 to uint8, before ``augment``.

With g(x) the grey value (0.299, 0.587, 0.114) of a pixel x on the 0-255 scale, and M the mean of g over the image:

    brightness  x -> b x
    contrast    x -> c x + (1 - c) m,     m the mean grey value of the image at that moment
    saturation  x -> s x + (1 - s) g(x)
    lighting    x -> x + 255 shift

Nothing is clipped before the end, as in the recipe's own code (CutMix-PyTorch, utils.py). Then the first three commute:
saturation leaves g as it is, brightness scales g and m alike. Whatever their order, the result is

    out = round(clip(b c s x + b c (1 - s) g(x) + b (1 - c) M + 255 shift, 0, 255))

so the recipe's random order changes nothing, and none is asked for. (torchvision's ColorJitter clips after every step,
which makes its order matter. The recipe's code goes on in float32 without the last clip; here pictures stay bytes.)

Source: Yun et al., CutMix (ICCV 2019), section 4.1.1; lighting: Krizhevsky et al., AlexNet (NIPS 2012), section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.color import kernels as color_kernels
from fastreg.kernels.dispatch import use_triton

_GREY = (0.299, 0.587, 0.114)


def color_jitter(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, lighting: Tensor | None = None
) -> Tensor:
    """``images``, uint8 [B, H, W, 3], with changed colours: a new tensor like it.

    ``brightness``, ``contrast``, ``saturation``: float32 [B], the factors b, c, s (1 changes nothing).
    ``lighting``: float32 [B, 3], a shift of red, green and blue on the 0-1 scale, or None. All on the images' device.
    Raises TypeError or ValueError for other dtypes, shapes and devices.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"color_jitter needs uint8 images, but they are {images.dtype}")
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise ValueError(f"color_jitter needs images [B, H, W, 3], but they are {list(images.shape)}")
    B = len(images)
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "brightness": (brightness, (B,)),
        "contrast": (contrast, (B,)),
        "saturation": (saturation, (B,)),
        "lighting": (lighting, (B, 3)),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and (value.dtype, tuple(value.shape), value.device) != (
            torch.float32,
            shape,
            images.device,
        ):
            raise ValueError(
                f"color_jitter needs {name} float32 {list(shape)} on {images.device}, "
                f"but it is {value.dtype} {list(value.shape)} on {value.device}"
            )
    if B == 0:
        return torch.empty_like(images)
    images = images.contiguous()
    b, c, s = brightness.contiguous(), contrast.contiguous(), saturation.contiguous()
    shift = None if lighting is None else lighting.contiguous()
    if use_triton(images) and color_kernels.fits(images):
        return color_kernels.jitter_triton(images, b, c, s, shift, _unit(images))
    return color_jitter_plain(images, b, c, s, shift)


def color_jitter_plain(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, lighting: Tensor | None = None
) -> Tensor:
    """The reference, and the path of CPUs and of images that are not whole vectors."""
    sums = images.sum((1, 2), dtype=torch.int64)
    mean = (299 * sums[:, 0] + 587 * sums[:, 1] + 114 * sums[:, 2]).float() * _unit(images)
    b, c, s = (factor[:, None, None] for factor in (brightness, contrast, saturation))
    red, green, blue = (images[..., k].float() for k in range(3))
    shade = (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue) * (b * c * (1 - s))
    constant = b * (1 - c) * mean[:, None, None]
    out = torch.empty_like(images)
    for k, channel in enumerate((red, green, blue)):
        added = constant if lighting is None else constant + 255 * lighting[:, k, None, None]
        out[..., k] = (channel * (b * c * s) + (shade + added)).clamp_(0, 255).add_(0.5)  # the cast truncates
    return out


def _unit(images: Tensor) -> float:
    """The mean grey value in one unit of the integer sums."""
    return 1 / (1000 * images.shape[1] * images.shape[2])
