"""Names of the operations and interpolations. A name's position is its number in tensors and kernels."""

from __future__ import annotations

from typing import Any

from fastreg.kernels.dispatch import tl

AUTO_AUGMENT_OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
    "SolarizeAdd",
)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def _number(name: str) -> Any:
    number = AUTO_AUGMENT_OPERATIONS.index(name)
    return number if tl is None else tl.constexpr(number)  # kernels may read constexpr globals only


SHEAR_X = _number("ShearX")
SHEAR_Y = _number("ShearY")
TRANSLATE_X = _number("TranslateX")
TRANSLATE_Y = _number("TranslateY")
ROTATE = _number("Rotate")
BRIGHTNESS = _number("Brightness")
COLOR = _number("Color")
CONTRAST = _number("Contrast")
SHARPNESS = _number("Sharpness")
POSTERIZE = _number("Posterize")
SOLARIZE = _number("Solarize")
AUTO_CONTRAST = _number("AutoContrast")
EQUALIZE = _number("Equalize")
INVERT = _number("Invert")
SOLARIZE_ADD = _number("SolarizeAdd")
