"""The uint8 stage before a plan's operations, and the noise of occurrences, against the reference."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels import Plan, augment, philox
from fastreg.kernels.augmentation import _to_bytes
from fastreg.kernels.augmentation.reference import augment_reference, draw_normals
from fastreg.kernels.augmentation.registry import MEAN, STD, draw_plan

GEOMETRIES = {
    "streamed": (("flip",), 8, 8, 8, 8), "odd": (("flip",), 5, 7, 5, 7), "cropped": (("crop", "flip"), 9, 10, 6, 7),
    "resized": (("flip",), 9, 10, 6, 7), "cropped alone": (("crop",), 9, 10, 6, 7),
}  # fmt: skip


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_bytes_are_those_of_the_reference(geometry):
    from fastreg.kernels.augmentation import _augment

    fields, H, W, h, w = GEOMETRIES[geometry]
    x = torch.randint(0, 256, (3, H, W, 3), generator=torch.Generator().manual_seed(H), dtype=torch.uint8)
    plan = draw_plan(fields, 3, H, W, (h, w), "cpu")
    ours = _to_bytes(_augment, (h, w), x, plan.crop, plan.flip)
    theirs = augment_reference(x, plan, mean=MEAN, std=STD, dtype=torch.uint8, size=(h, w), normal=None)
    assert ours.dtype == torch.uint8
    assert ours.is_contiguous()
    assert torch.equal(ours, theirs.permute(0, 2, 3, 1))


@pytest.mark.parametrize("W", [8, 7])
def test_noise_of_an_occurrence_is_that_of_its_key(W):
    x = torch.randint(0, 256, (4, 8, W, 3), generator=torch.Generator().manual_seed(W), dtype=torch.uint8)
    keys = torch.from_numpy(philox.sample_keys([5, 5, 2**31, 9], [0, 3, 1, 0]))
    keys[3] = philox.view_keys(keys[3], 2)
    plan = Plan(noise=torch.full((4,), 0.1))
    ours = augment(x, plan, mean=MEAN, std=STD, dtype=torch.float32, seed=3, step=4, indices=keys)
    normal = draw_normals(3, keys, 4, (8, W), x.device)
    theirs = augment_reference(x, plan, mean=MEAN, std=STD, dtype=torch.float32, size=(8, W), normal=normal)
    assert (ours - theirs).abs().max() < 2e-5
    assert not torch.equal(normal[0], normal[1])
