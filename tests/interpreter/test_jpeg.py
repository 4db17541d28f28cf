"""The JPEG kernels against Pillow: whole blocks, partial ones on either side, and chroma too narrow to smooth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg.kernels import dispatch, jpeg_round_trip
from fastreg.kernels.jpeg.kernels import jpeg_triton
from fastreg.kernels.jpeg.reference import pillow_round_trip


def images(height: int, width: int) -> torch.Tensor:
    """A natural image, noise, and pixels of pure black and white."""
    data = pytest.importorskip("skimage.data", reason="skimage is not installed")
    rng = np.random.default_rng(height * width)
    natural = data.astronaut()[100 : 100 + height, 150 : 150 + width]
    noise = rng.integers(0, 256, natural.shape, dtype=np.uint8)
    extremes = rng.integers(0, 2, natural.shape, dtype=np.uint8) * 255
    return torch.from_numpy(np.stack((natural, noise, extremes)))


# 32 x 48 is read by whole words, the others by bytes
@pytest.mark.parametrize(
    ("height", "width", "quality"), [(32, 48, 85), (37, 41, 25), (6, 3, 50), (1, 2, 100), (9, 70, 1)]
)
def test_equals_pillow(height, width, quality):
    assert dispatch.INTERPRETED
    source = images(height, width)
    ours = jpeg_triton(source, quality, blocks=256)  # one program: the interpreter runs them one after another
    assert torch.equal(ours, pillow_round_trip(source, quality))


def test_the_public_function_launches_several_programs():
    source = images(9, 70)
    assert torch.equal(jpeg_round_trip(source, 1), jpeg_triton(source, 1, blocks=256))
