"""Launches and memory of each corruption on a device, counted in the interpreter; the host never waits.

Images are 224 px (64 for JPEG, which is slow here and costs the same per value), the severity is 5, the batch is one
image: the tables of a batch count in full.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg.kernels.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from tests.interpreter.traffic import measured
from tests.kernels.corruptions.golden_cases import frost_textures, sample_image

# limits: launches, bytes alive at once per value of the image with its result, as in the table of the README
MOST = dict.fromkeys(CORRUPTIONS + EXTRA_CORRUPTIONS, (1, 1.1)) | {
    "defocus_blur": (12, 34),
    "glass_blur": (8, 21),
    "zoom_blur": (4, 5.2),
    "snow": (5, 3),
    "fog": (13, 7),
    "contrast": (2, 1.1),
    "elastic_transform": (40, 23),
    "pixelate": (3, 1.1),
    "jpeg_compression": (2, 1.5),
    "gaussian_blur": (3, 17),
    "spatter": (21, 17),  # severities 1 to 3 find the drops' edges in OpenCV, on the host
}
pytestmark = pytest.mark.usefixtures("wide_blocks")


@pytest.mark.parametrize("name", MOST)
def test_launches_memory_and_no_waiting(name):
    images = torch.from_numpy(sample_image("coffee", 64 if name == "jpeg_compression" else 224))[None]
    drawn = {"indices": np.array([3]), "textures": frost_textures()}
    corrupt(images[:, :8, :8], name, 5, constants="imagenet224", **drawn)  # tables that are made once are not counted
    with measured() as traffic:
        out = corrupt(images, name, 5, **drawn)
    launches, per_value = MOST[name]
    print(f"{name}: {traffic.launches} launches, {traffic.peak / out.numel():.1f} bytes per value")
    assert 0 < traffic.launches <= launches
    assert out.numel() <= traffic.peak <= per_value * out.numel()


def test_waiting_is_noticed():
    """``measured`` notices every operation that makes the host wait."""
    images = torch.from_numpy(sample_image("coffee", 32))[None]
    with pytest.raises(AssertionError, match="would wait"), measured():
        corrupt(images, "spatter", 1, indices=np.array([3]))
    for wait in (lambda x: x.sum().item(), lambda x: x[x > 3], lambda x: x.nonzero(), lambda x: bool(x.max())):
        with pytest.raises(AssertionError, match="wait"), measured():
            wait(images)
