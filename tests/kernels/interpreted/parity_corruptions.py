"""``corrupt`` by way of its kernels in the interpreter: the published output on its fields, and the draws."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels.corruptions import (
    corrupt,
    digital_kernels,
    draw_fields,
    field_kernels,
    fields,
    filter_kernels,
    noise_kernels,
    pixel_kernels,
    plasma,
    weather_kernels,
)
from tests.kernels.test_corruptions import ALL, LIMITS, NOT_GOLDEN, difference, frost_photographs, published


@pytest.fixture(autouse=True)
def wide_blocks(monkeypatch):
    """The interpreter runs programs one after another: fewer, wider ones."""
    for module in (digital_kernels, field_kernels, filter_kernels, noise_kernels, pixel_kernels, weather_kernels):
        for size in {"BLOCK", "PIXELS", "CELLS"} & vars(module).keys():
            monkeypatch.setattr(module, size, 2**16)


@pytest.mark.parametrize("name", [name for name in ALL if name not in NOT_GOLDEN])
def test_equals_the_published_output(name):
    seen = 0
    for constants, severity, images, given, output in published(name):
        if (constants, severity) in (("cifar32", 4), ("cifar32", 5)):
            ours = corrupt(images, name, severity, fields=given or None)[0].numpy()
            level, share = difference(ours, output)
            assert level <= LIMITS[name][0]
            assert share <= LIMITS[name][1]
            seen += 1
    assert seen == 2


@pytest.mark.parametrize("name", ["shot_noise", "impulse_noise", "frost"])
def test_drawn_in_the_kernel_as_by_fields(name):
    images = torch.arange(3 * 32 * 32 * 3, dtype=torch.uint8).view(3, 32, 32, 3)
    key = {"seed": 7, "indices": torch.tensor([5, 2**31 + 9, 0]), "textures": frost_photographs()}
    given = draw_fields(name, 4, size=32, images=images, **key)
    assert torch.equal(corrupt(images, name, 4, **key), corrupt(images, name, 4, fields=given))


@pytest.mark.parametrize("name", ["shot_noise", "impulse_noise", "glass_blur", "fog", "elastic_transform", "snow"])
def test_draws_equal_the_hosts(name, monkeypatch):
    images = torch.arange(2 * 32 * 32 * 3, dtype=torch.uint8).view(2, 32, 32, 3)
    key = {"seed": 2**63 + 1, "indices": torch.tensor([5, 2**31 + 9]), "size": 32, "images": images}
    ours = draw_fields(name, 5, **key)
    for module in (fields, plasma):
        monkeypatch.setattr(module, "use_triton", lambda *tensors: False)
    theirs = draw_fields(name, 5, **key)
    assert ours.keys() == theirs.keys()
    for field, values in ours.items():
        assert values.dtype == theirs[field].dtype
        tolerance = 1e-6 if field == "normal" else 0
        assert (values.double() - theirs[field].double()).abs().max() <= tolerance
