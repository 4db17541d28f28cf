"""``corrupt`` by its kernels: the published output on the published fields, and the draws."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels.corruptions import (
    corrupt,
    cpu,
    draw_fields,
    glass,
    noise,
)
from tests.kernels.corruptions.golden_cases import ALL, LIMITS, NOT_GOLDEN, difference, frost_textures, published

pytestmark = pytest.mark.usefixtures("wide_blocks")


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


def test_shifts_out_of_range_stay_inside_the_image():
    """As on a GPU, where values are not checked: shifts beyond the reach count as the farthest, chains end."""
    levels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    wild = torch.randint(-(2**15), 2**15, (2, 2, 3, 32, 32)).short()
    ours = glass.shuffle_triton(levels, *wild, reach=4)
    assert torch.equal(ours, glass.shuffle_reference(levels, *wild.clamp(-4, 3), reach=4))


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy's warning about a cast that is zero on a GPU
def test_spatter_without_a_drop_is_black():
    images, field = torch.full((2, 32, 32, 3), 200, dtype=torch.uint8), torch.full((2, 32, 32), -6.0)
    assert not corrupt(images, "spatter", 1, fields={"normal": field}).any()


def test_counts_out_of_range_are_black_and_white():
    counts = torch.tensor([-(2**31), -1, 0, 3, 60, 61, 2**31 - 1]).view(1, 1, 7, 1)
    images = counts.to(torch.uint8)
    assert noise.shot_noise(images, 60, {"counts": counts}).flatten().tolist() == [0, 0, 0, 12, 255, 255, 255]


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise", "shot_noise", "impulse_noise", "frost"])
def test_drawn_in_the_kernel_as_by_fields(name):
    images = torch.arange(3 * 32 * 32 * 3, dtype=torch.uint8).view(3, 32, 32, 3)
    key = {"seed": 7, "indices": torch.tensor([5, 2**31 + 9, 0]), "textures": frost_textures()}
    given = draw_fields(name, 4, size=32, images=images, **key)
    assert torch.equal(corrupt(images, name, 4, **key), corrupt(images, name, 4, fields=given))


@pytest.mark.parametrize("name", ["shot_noise", "impulse_noise", "glass_blur", "fog", "elastic_transform", "snow"])
def test_draws_equal_the_hosts(name, monkeypatch):
    images = torch.arange(2 * 32 * 32 * 3, dtype=torch.uint8).view(2, 32, 32, 3)
    key = {"seed": 2**63 + 1, "indices": torch.tensor([5, 2**31 + 9]), "size": 32, "images": images}
    ours = draw_fields(name, 5, **key)
    monkeypatch.setattr(cpu, "use_triton", lambda *tensors: False)
    theirs = draw_fields(name, 5, **key)
    assert ours.keys() == theirs.keys()
    for field, values in ours.items():
        assert values.dtype == theirs[field].dtype
        tolerance = 1e-6 if field == "normal" else 0
        assert (values.double() - theirs[field].double()).abs().max() <= tolerance
