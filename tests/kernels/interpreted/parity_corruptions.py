"""``corrupt`` by way of its kernels in the interpreter: the published output on its fields, and the draws."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels.corruptions import corrupt, draw_fields, field_kernels, fields, filter_kernels
from tests.kernels.test_corruptions import LIMITS, difference, published

ROUTED = ("gaussian_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "elastic_transform", "spatter")


@pytest.fixture(autouse=True)
def wide_blocks(monkeypatch):
    """The interpreter runs programs one after another: fewer, wider ones."""
    monkeypatch.setattr(filter_kernels, "BLOCK", 4096)
    monkeypatch.setattr(field_kernels, "BLOCK", 1024)


@pytest.mark.parametrize("name", ROUTED)
def test_equals_the_published_output(name):
    for constants, severity, images, given, output in published(name):
        if (constants, severity) in (("cifar32", 4), ("cifar32", 5)):
            ours = corrupt(images, name, severity, fields=given or None)[0].numpy()
            level, share = difference(ours, output)
            assert level <= LIMITS[name][0]
            assert share <= LIMITS[name][1]


@pytest.mark.parametrize("name", ["shot_noise", "impulse_noise", "glass_blur", "fog", "elastic_transform", "snow"])
def test_draws_equal_the_hosts(name, monkeypatch):
    images = torch.arange(2 * 32 * 32 * 3, dtype=torch.uint8).view(2, 32, 32, 3)
    key = {"seed": 2**63 + 1, "indices": torch.tensor([5, 2**31 + 9]), "size": 32, "images": images}
    ours = draw_fields(name, 5, **key)
    monkeypatch.setattr(fields, "use_triton", lambda *tensors: False)
    theirs = draw_fields(name, 5, **key)
    assert ours.keys() == theirs.keys()
    for field, values in ours.items():
        assert values.dtype == theirs[field].dtype
        tolerance = 1e-6 if field == "normal" else 0
        assert (values.double() - theirs[field].double()).abs().max() <= tolerance
