"""Images and magnitudes on which ``auto_augment`` is compared with other implementations."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from fastreg.kernels import AUTO_AUGMENT_OPERATIONS

# Of TrivialAugmentWide, RandAugment, AutoAugment and timm, and beyond: quarter turns, ties of the fixed point, extremes
_MAGNITUDES = {
    "Shear": (0.0, 0.3, -0.3, 0.0099, 0.99, -0.99, 0.5, 1.0, -1.0, 7.3, 400.0, -1e5),
    "Translate": (0.0, 32.0, -32.0, 0.9, -0.9, 11.7, -150.5, 1e6),
    "Rotate": (0.0, 135.0, -135.0, 30.0, -29.7, 45.0, 90.0, -90.0, 180.0, 270.0, 360.0, 725.5, 1e-3),
    "Enhance": (0.0, 0.99, -0.99, 0.9, -0.5, -1.0, 0.1, 3.0, -2.5),
    "Posterize": (8.0, 4.0, 2.0, 1.0, 6.4),
    "Solarize": (255.0, 128.0, 0.0, 256.0, 110.5),
    "SolarizeAdd": (0.0, 1.0, 44.0, 110.0, 128.0, 300.0, -20.0),
}
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
FILL = (9, 200, 31)


def magnitudes(name: str) -> tuple[float, ...]:
    kind = "Enhance" if name in ("Brightness", "Color", "Contrast", "Sharpness") else name.rstrip("XY")
    return _MAGNITUDES.get(kind, (0.0,))


def number(name: str) -> int:
    return AUTO_AUGMENT_OPERATIONS.index(name)


@cache
def sample_images() -> tuple[np.ndarray, ...]:
    """A photograph, noise, a smooth ramp, a narrow range, one level, two levels; wide, tall, one row, one pixel."""
    rng = np.random.default_rng(0)
    data = pytest.importorskip("skimage.data", reason="skimage is not installed")
    ramp = np.linspace(10, 240, 24 * 40 * 3).reshape(24, 40, 3)
    return (
        data.astronaut()[80:128, 180:228].copy(),
        rng.integers(0, 256, (33, 33, 3), np.uint8),
        ramp.astype(np.uint8),
        rng.integers(100, 140, (41, 18, 3), np.uint8),
        np.full((16, 16, 3), 77, np.uint8),
        rng.choice(np.array([3, 250], np.uint8), (20, 21, 3)),
        rng.integers(0, 256, (1, 9, 3), np.uint8),
        rng.integers(0, 256, (1, 1, 3), np.uint8),
    )


def every(image: np.ndarray, names: tuple[str, ...] = AUTO_AUGMENT_OPERATIONS) -> tuple[Tensor, Tensor, Tensor]:
    """The image once per operation and magnitude: images, operations [B, 1], magnitudes [B, 1]."""
    todo = [(number(name), m) for name in names for m in magnitudes(name)]
    operations, strengths = (torch.tensor(column)[:, None] for column in zip(*todo))
    return torch.from_numpy(image).expand(len(todo), *image.shape).contiguous(), operations, strengths
