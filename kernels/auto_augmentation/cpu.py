"""The route of CPU tensors: Pillow's own functions, sample by sample."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from fastreg.kernels.auto_augmentation.operations import AUTO_AUGMENT_OPERATIONS

_RESAMPLE = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def auto_augment_cpu(
    images: Tensor, operations: Tensor, magnitudes: Tensor, mode: int, modes: Tensor | None, fill: list[int]
) -> Tensor:
    """``auto_augment`` on checked CPU tensors."""
    out = np.empty(images.shape, np.uint8)
    choices = torch.full_like(operations, mode) if modes is None else modes
    rows = zip(images.numpy(), operations.tolist(), magnitudes.tolist(), choices.tolist(), out)
    for pixels, names, strengths, filters, target in rows:
        image = Image.fromarray(pixels)
        for operation, m, resample in zip(names, strengths, filters):
            image = _apply(image, AUTO_AUGMENT_OPERATIONS[operation], m, _RESAMPLE[resample], tuple(fill))
        target[:] = np.asarray(image)
    return torch.from_numpy(out)


def _apply(image: Image.Image, name: str, m: float, resample: int, fill: tuple[int, ...]) -> Image.Image:
    if name in _MATRIX:
        return image.transform(image.size, Image.Transform.AFFINE, _MATRIX[name](m), resample, fillcolor=fill)
    if name == "Rotate":
        return image.rotate(m, resample, fillcolor=fill)
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(1.0 + m)
    if name == "AutoContrast":
        return ImageOps.autocontrast(image)
    if name == "Equalize":
        return ImageOps.equalize(image)
    if name in _LEVEL:
        return image.point([_LEVEL[name](v, m) for v in range(256)] * 3)
    return image


def _angle(m: float) -> float:
    """The shear's angle in radians, by torchvision's way through degrees, which moves the last bits."""
    return math.radians(math.degrees(math.atan(m)))


# From output to input, for Pillow's transform.
_MATRIX = {
    "ShearX": lambda m: (1.0, math.tan(_angle(m)), 0.0, 0.0, 1.0, 0.0),
    "ShearY": lambda m: (1.0, 0.0, 0.0, math.sin(_angle(m)) / math.cos(_angle(m)), 1.0, 0.0),
    "TranslateX": lambda m: (1.0, 0.0, -int(m), 0.0, 1.0, 0.0),
    "TranslateY": lambda m: (1.0, 0.0, 0.0, 0.0, 1.0, -int(m)),
}
_LEVEL = {
    "Posterize": lambda v, m: v & ~(255 >> min(max(int(m), 0), 8)),
    "Solarize": lambda v, m: v if v < m else 255 - v,
    "Invert": lambda v, m: 255 - v,
    "SolarizeAdd": lambda v, m: min(max(v + int(m), 0), 255) if v < 128 else v,
}
