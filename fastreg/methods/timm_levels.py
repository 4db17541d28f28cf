"""timm's laws of automatic augmentation: operations, their levels from 0 to 10, and the arguments of a level.

    level = N(magnitude, mstd^2), or U(0, magnitude) for mstd > 100; clipped to [0, magnitude_max]

Operations differ from torchvision's in their ranges. In the increasing set (``inc``) every operation is stronger at a
higher level; otherwise enhancements go from factor 0.1 to 1.9, and Posterize and Solarize become weaker.

Two departures: translations are rounded to whole pixels, where timm's interpolate (nearest, it would round as well),
and AugMix rounds once, not after its chains too.

Source: timm 1.0, data/auto_augment.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastreg.kernels import philox
from fastreg.methods.automatic import OPERATION_ID, top_bit
from fastreg.methods.base import Arrays

Level = np.ndarray  # float64, 0 to 10 (or magnitude_max)


def _enhance(level: Level, sign: np.ndarray) -> np.ndarray:
    return level / 10 * 1.8 + 0.1 - 1


def _enhance_increasing(level: Level, sign: np.ndarray) -> np.ndarray:
    return np.maximum(0.1, 1 + sign * (level / 10 * 0.9)) - 1


def _posterize(level: Level, sign: np.ndarray) -> np.ndarray:
    return np.trunc(level / 10 * 4)


def _solarize(level: Level, sign: np.ndarray) -> np.ndarray:
    return np.minimum(256, np.trunc(level / 10 * 256))


# operation: its argument from (level, sign); translations are below, since they need the image's sides
_ARGUMENTS: dict[str, Callable[[Level, np.ndarray], np.ndarray]] = {
    "Rotate": lambda level, sign: sign * (level / 10 * 30),
    "ShearX": lambda level, sign: sign * (level / 10 * 0.3),
    "ShearY": lambda level, sign: sign * (level / 10 * 0.3),
    "SolarizeAdd": lambda level, sign: np.minimum(128, np.trunc(level / 10 * 110)),
}
_ENHANCEMENTS = ("Color", "Contrast", "Brightness", "Sharpness")
_CONSTANT = {
    **dict.fromkeys(_ENHANCEMENTS, _enhance), "Posterize": _posterize, "Solarize": _solarize,
}  # fmt: skip
_INCREASING: dict[str, Callable[[Level, np.ndarray], np.ndarray]] = {
    **dict.fromkeys(_ENHANCEMENTS, _enhance_increasing),
    "Posterize": lambda level, sign: 4 - _posterize(level, sign),
    "Solarize": lambda level, sign: 256 - _solarize(level, sign),
}

UNIFORM = 100  # an mstd above draws levels uniformly
RAND_AUGMENT = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast",
    "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY",
)  # fmt: skip
AUGMIX = (
    "AutoContrast", "Color", "Contrast", "Brightness", "Sharpness", "Equalize", "Rotate", "Posterize", "Solarize",
    "ShearX", "ShearY", "TranslateX", "TranslateY",
)  # fmt: skip
# of ``rand-...-tweights``, in the order of RAND_AUGMENT; its operations are the increasing ones
WEIGHTS = np.array([0.25, 0.05, 0.05, 3, 0.05, 0.05, 0.05, 0.25, 0.05, 0.05, 0.25, 2, 2, 1, 1])


def draw_levels(words: np.ndarray, magnitude: float, mstd: float, most: float) -> np.ndarray:
    """Levels, float64 [...], from words [..., 4]: the first two make a normal, the third a uniform number."""
    if mstd == 0:
        level = np.full(words.shape[:-1], float(magnitude))
    elif mstd > UNIFORM:
        level = magnitude * philox.uniform(words[..., 2]).astype(np.float64)
    else:
        level = magnitude + mstd * philox.normal(words[..., :2])[..., 0].astype(np.float64)
    return np.clip(level, 0, most)


def arguments(
    names: tuple[str, ...],
    choice: np.ndarray,
    level: np.ndarray,
    words: np.ndarray,
    *,
    increasing: bool,
    size: tuple[int, int],
    translate_pct: float,
) -> Arrays:
    """The plan's arrays of operations ``names[choice]`` at ``level``; signs and interpolation from words [..., 2]."""
    sign = np.where(top_bit(words[..., 0]), -1.0, 1.0)
    table = {**_ARGUMENTS, **(_INCREASING if increasing else _CONSTANT)}
    pixels = level / 10 * translate_pct
    shifts = {"TranslateX": sign * np.rint(pixels * size[1]), "TranslateY": sign * np.rint(pixels * size[0])}
    magnitude = np.zeros(choice.shape)
    for i, name in enumerate(names):
        if name in table or name in shifts:
            own = shifts[name] if name in shifts else table[name](level, sign)
            magnitude = np.where(choice == i, own, magnitude)
    operations = np.array([OPERATION_ID[name] for name in names])[choice]
    return {"operations": operations, "magnitudes": magnitude, "interpolation": 1 + top_bit(words[..., 1])}
