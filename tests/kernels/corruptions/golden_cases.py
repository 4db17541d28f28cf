"""Images, random fields, published output and tolerances that the tests of the corruptions share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from fastreg.kernels.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, draw_fields

ALL = CORRUPTIONS + EXTRA_CORRUPTIONS
GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "corruptions.npz"
NOT_GOLDEN = ("gaussian_noise", "speckle_noise", "impulse_noise")  # their fields are trivial, or cannot be replayed
# largest difference in levels, share of differing values in percent
EQUAL, RARE, SOME = (0, 0.0), (1, 0.1), (1, 2.0)
LIMITS = dict.fromkeys(ALL, SOME) | {
    "pixelate": EQUAL,
    "motion_blur": EQUAL,
    "jpeg_compression": EQUAL,
    "impulse_noise": EQUAL,
    "gaussian_noise": EQUAL,
    "speckle_noise": EQUAL,
    "frost": RARE,
    "shot_noise": RARE,
    "glass_blur": RARE,
    "contrast": RARE,
    "spatter": (2, 2.0),
}


@lru_cache
def sample_image(name: str, size: int) -> np.ndarray:
    """Central square of a scikit-image image, uint8 [size,size,3]; "flat" has four levels per channel."""
    import cv2
    from skimage import data

    if name == "flat":
        return sample_image("chelsea", size) // 85 * 85
    image = getattr(data, name)()[..., :3]
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)


@lru_cache
def frost_textures() -> tuple[np.ndarray, ...]:
    """Five random textures of the published sizes: frost works for any texture."""
    sides = ((600, 900), (315, 560), (315, 560), (350, 527), (495, 660))
    rng = np.random.default_rng(0)
    return tuple(rng.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides)


def fields_of(name: str, severity: int, images: torch.Tensor, seed: int = 11, **kw) -> dict:
    """The random fields of ``images`` at indices 7, 8, …"""
    indices = torch.arange(len(images)) + 7
    size = images.shape[1]
    textures = frost_textures()
    return draw_fields(name, severity, seed=seed, indices=indices, size=size, textures=textures, images=images, **kw)


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[int, float]:
    """The largest difference in levels, and the share of differing values in percent."""
    apart = np.abs(ours.astype(int) - theirs)
    return int(apart.max()), 100 * float((apart > 0).mean())


def published(name: str) -> Iterator[tuple[str, int, torch.Tensor, dict, np.ndarray]]:
    """Constants, severity, images, fields and output of every stored result of the published code."""
    golden = np.load(GOLDEN)
    for key in golden.files:
        constants, corruption, *rest = key.split("/")
        if corruption == name and rest[1:] == ["output"]:
            images = torch.from_numpy(golden[f"{constants}/image"])[None]
            stem = f"{constants}/{name}/{rest[0]}/fields/"
            fields = {k.removeprefix(stem): torch.from_numpy(golden[k][None]) for k in golden.files if stem in k}
            yield constants, int(rest[0]), images, fields, golden[key]


def needs_magick(name: str) -> None:
    """Skip a test of ``name`` where its reference implementation, ImageMagick, is missing."""
    if name in ("motion_blur", "snow"):
        try:
            import wand.image  # noqa: F401
        except ImportError:
            pytest.skip("Wand finds no ImageMagick: apt-get install libmagickwand-6.q16-6")
