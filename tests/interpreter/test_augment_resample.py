"""The resample kernel with two taps, three, and any number; whole, shifted and outside crops; tiny images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.benchmarks.images import image_batch
from fastreg.kernels import Plan, augment
from fastreg.kernels.augmentation import resample
from fastreg.kernels.augmentation.launch import augment_triton
from fastreg.kernels.augmentation.reference import crop_and_resize

BYTES = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3, "dtype": torch.float32}  # the pixels as they are
# input, output, crops (top, left, height, width). Sums that are halves of a level, which the last unit of a weight
# decides, are common where crop over output is a ratio of small numbers.
CASES = {
    "enlarged": ((40, 50), (37, 45), [[3, 7, 20, 30], [0, 0, 37, 45], [10, 49, 30, 1]]),
    "enlarged between pixels": ((40, 50), (37, 45), [[3.5, 7.25, 20, 30], [0.1, 0.2, 37, 4], [2, 3, 7.7, 9.9]]),
    "shrunk a little": ((40, 50), (33, 36), [[0, 0, 40, 50], [2.5, 1.5, 37.5, 20.0], [0, 0, 3, 50]]),
    "shrunk": ((40, 50), (9, 33), [[0, 0, 40, 50], [7.25, 3, 11, 47], [0, 0, 40, 33]]),
    "outside the image": ((12, 13), (12, 13), [[-4, 4, 12, 13], [2.5, -30, 9, 60], [50, 50, 8, 8]]),
    "an image of one row": ((1, 5), (4, 4), [[0, 0, 1, 5], [0, 0, 1, 2], [0, 3, 1, 1.5]]),
    "an image of one pixel": ((1, 1), (3, 2), [[0, 0, 1, 1], [-1, -1, 3, 3], [0.25, 0.25, 0.5, 0.5]]),
}


@pytest.mark.parametrize("name", CASES)
def test_levels(name):
    (H, W), size, crops = CASES[name]
    images = torch.randint(0, 256, (3, H, W, 3), generator=torch.Generator().manual_seed(H), dtype=torch.uint8)
    crop = torch.tensor(crops, dtype=torch.float32)
    ours = augment(images, Plan(crop=crop), **BYTES, size=size).permute(0, 2, 3, 1)
    assert (ours - crop_and_resize(images, crop, size)).abs().max() < 0.01


def test_whole_images_equal_pillow(monkeypatch):
    """256 to 224 pixels: 8/7 makes many sums half a level, where the last unit of Pillow's 22-bit weights decides.

    Weights in float32 gave 67 for Pillow's 65 in image 1 at [110, 19, 1]. The reference differs from Pillow only in the
    order of the two passes.
    """
    for size in ("ROWS", "COLUMNS"):
        monkeypatch.setattr(resample, size, 256)  # the interpreter runs programs one after another: one, in place of 98
    images = image_batch(16, 256, torch.device("cpu"))[:2]
    crop = torch.tensor([[0.0, 0.0, 256.0, 256.0]]).expand(2, 4)
    ours = augment(images, Plan(crop=crop), **BYTES, size=224).permute(0, 2, 3, 1)
    assert (ours - crop_and_resize(images, crop, (224, 224))).abs().max() < 0.01
    for image, result in zip(images.numpy(), ours.numpy()):
        pillow = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR))
        assert np.abs(result - pillow).max() < 1.01
    assert abs(ours[1, 110, 19, 1].item() - pillow[110, 19, 1]) < 0.01


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # numpy's warning about the NaN of this test
def test_a_bad_crop_is_nan_without_a_check():
    """As on a GPU, where values are not checked. A sample mixed with it is NaN, too."""
    crop = torch.tensor([[0, 0, torch.inf, 8], [0, 0, 8, 8], [0, torch.nan, 8, 8], [0, 0, 0, 8], [0, 0, 8, 8]])
    plan = Plan(crop=crop, partner=torch.tensor([0, 0, 2, 3, 4]), lam=torch.full((5,), 0.5))
    images = torch.zeros(5, 8, 8, 3, dtype=torch.uint8)
    rest = {"size": (6, 6), "seed": 0, "indices": None, "step": 0, "normal": None}
    ours = augment_triton(images, plan, **BYTES, **rest)
    assert ours.isnan().flatten(1).all(1).tolist() == [True, True, True, True, False]
    assert not ours[4].isnan().any()
