"""The JPEG round trip: OpenCV or Pillow on the CPU, integer kernels in Triton, all three equal."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.kernels import jpeg_round_trip
from fastreg.kernels.jpeg import reference
from fastreg.kernels.jpeg.blocks import quantizer_steps


def test_quantizer_steps_equal_pillows():
    image = Image.new("RGB", (8, 8))
    for quality in range(1, 101):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        tables = Image.open(buffer).quantization
        for ours, theirs in zip(quantizer_steps(quality), (tables[0], tables[1])):
            assert list(ours) == list(theirs)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (1, 1), (17, 5), (40, 33)])
def test_is_pillow_on_the_cpu(height, width):
    images = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    for quality in (1, 85, 100):
        result = jpeg_round_trip(images, quality)
        for one, source in zip(result, images):
            buffer = io.BytesIO()
            Image.fromarray(source.numpy()).save(buffer, "JPEG", quality=quality)
            assert np.array_equal(one.numpy(), np.asarray(Image.open(buffer)))
    assert torch.equal(images, before)
    assert jpeg_round_trip(images[:0], 85).shape == (0, height, width, 3)


def test_opencv_equals_pillow_at_every_quality():
    """On noise and on a smooth image, of sizes that are and are not whole blocks."""
    assert reference.opencv_equals_pillow()
    line = torch.arange(53)
    smooth = (line[:37, None, None] * 3 + line[None, :, None] * 2 + torch.tensor([0, 40, 90])).to(torch.uint8)
    noise = torch.randint(0, 256, smooth.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    images = torch.stack((smooth, noise))
    for quality in range(1, 101):
        for cut in (images, images[:, :32, 5:21], images[:, :2, :3]):
            assert torch.equal(reference.opencv_round_trip(cut, quality), reference.pillow_round_trip(cut, quality))


def test_an_opencv_that_differs_is_not_used(monkeypatch):
    monkeypatch.setattr(reference, "opencv_round_trip", lambda images, quality: 255 - images)
    monkeypatch.setattr(reference, "opencv_equals_pillow", reference.opencv_equals_pillow.__wrapped__)
    images = torch.arange(48, dtype=torch.uint8).view(1, 4, 4, 3)
    assert torch.equal(jpeg_round_trip(images, 50), reference.pillow_round_trip(images, 50))


def test_bad_input():
    images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"`images` is torch\.float32: give a torch\.uint8 tensor"):
        jpeg_round_trip(images.float(), 85)
    with pytest.raises(TypeError, match="ndarray"):
        jpeg_round_trip(images.numpy(), 85)
    with pytest.raises(ValueError, match="channels last"):
        jpeg_round_trip(images.permute(0, 3, 1, 2), 85)
    for quality in (0, 101, 85.0, True):
        with pytest.raises(ValueError, match="whole number from 1 to 100"):
            jpeg_round_trip(images, quality)
