"""Names of the operations and of the interpolations. Their order is their number in ``operations``."""

from __future__ import annotations

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
