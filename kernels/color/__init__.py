"""``color_jitter``: brightness, contrast, saturation and PCA lighting, uint8 to uint8, before ``augment``.

With g(x) = 0.299 red + 0.587 green + 0.114 blue of a pixel x on the 0-255 scale, and M the mean of g over the image:

    brightness  x -> b x
    contrast    x -> c x + (1 - c) m,     m the mean gray value of the image at that moment
    saturation  x -> s x + (1 - s) g(x)
    lighting    x -> x + 255 shift

Nothing is clipped before the end, as in the code of the recipe (CutMix-PyTorch, utils.py). Then the first three
commute: saturation keeps g, brightness scales g and m alike. In every order the result is

    out = round(clip(b c s x + b c (1 - s) g(x) + b (1 - c) M + 255 shift, 0, 255))

so the order does not matter. torchvision's ColorJitter clips after every step, which makes its order matter. The
recipe's code continues in float32 without the last clip; here images stay uint8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.color import kernels
from fastreg.kernels.color.reference import color_jitter_reference, gray_unit
from fastreg.kernels.dispatch import use_compiled, use_triton

__all__ = ["color_jitter"]


def color_jitter(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, lighting: Tensor | None = None
) -> Tensor:
    """Change brightness, contrast, saturation and lighting of each image.

    Args:
        images: uint8 [B, H, W, 3], RGB.
        brightness: float32 [B], factor per image on the images' device. 1 changes nothing.
        contrast: float32 [B], factor per image on the images' device. 1 changes nothing.
        saturation: float32 [B], factor per image on the images' device. 1 changes nothing.
        lighting: float32 [B, 3], shift of red, green and blue on the 0-1 scale, on the images' device. None: no shift.

    Returns:
        uint8 [B, H, W, 3], a new contiguous tensor.

    Raises:
        TypeError: ``images`` is not uint8.
        ValueError: A tensor has another shape, another device, or a factor another dtype.

    Source:
        Yun et al., CutMix (ICCV 2019), section 4.1.1; lighting: Krizhevsky et al., AlexNet (NIPS 2012), section 4.1.
    """
    _check(images, {"brightness": brightness, "contrast": contrast, "saturation": saturation}, lighting)
    if len(images) == 0:
        return torch.empty_like(images)
    images = images.contiguous()
    b, c, s = brightness.contiguous(), contrast.contiguous(), saturation.contiguous()
    shift = None if lighting is None else lighting.contiguous()
    if use_triton(images) and kernels.supports(images):
        return kernels.color_jitter_triton(images, b, c, s, shift, gray_unit(images))
    if use_compiled(images, b, c, s, shift):
        from fastreg.kernels.color.cpu import color_jitter_cpu

        return color_jitter_cpu(images, b, c, s, shift)
    return color_jitter_reference(images, b, c, s, shift)


def _check(images: Tensor, factors: dict[str, Tensor], lighting: Tensor | None) -> None:
    if images.dtype != torch.uint8:
        raise TypeError(f"`images` is {images.dtype}: give torch.uint8 [B, H, W, 3].")
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise ValueError(f"`images` has shape {list(images.shape)}: give [B, H, W, 3] with H and W of 1 or more.")
    fields: dict[str, Tensor | None] = {**factors, "lighting": lighting}
    for name, value in fields.items():
        shape = (len(images), 3) if name == "lighting" else (len(images),)
        found = None if value is None else (value.dtype, tuple(value.shape), value.device)
        if value is not None and found != (torch.float32, shape, images.device):
            raise ValueError(
                f"`{name}` is {value.dtype} {list(value.shape)} on {value.device}: "
                f"give torch.float32 {list(shape)} on {images.device}."
            )
