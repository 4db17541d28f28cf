"""Real images for the benchmarks."""

from __future__ import annotations

import torch

from fastreg.benchmarks import images


def test_images_are_real_and_batches_repeat():
    stock, where = images.real_images()
    assert "1/f" not in where
    assert all(image.dtype == "uint8" and image.shape[2] == 3 for image in stock)
    a, b = (images.image_batch(3, 48, torch.device("cpu"), seed=4) for _ in range(2))
    assert torch.equal(a, b)
    a.zero_()
    assert images.image_batch(3, 48, torch.device("cpu"), seed=4).any()  # a caller's writing changes no other's pixels
