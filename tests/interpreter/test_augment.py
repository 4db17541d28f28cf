"""The kernels of ``augment`` beyond the registry's examples: several chunks, ragged ends, half types, bad values."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels import Plan, augment
from fastreg.kernels.augmentation.launch import augment_triton
from fastreg.kernels.augmentation.reference import augment_reference
from fastreg.kernels.augmentation.registry import MEAN, STD, draw_plan

GIVEN = {"mean": MEAN, "std": STD}


def images(B: int, H: int, W: int) -> torch.Tensor:
    return torch.randint(0, 256, (B, H, W, 3), generator=torch.Generator().manual_seed(W), dtype=torch.uint8)


PASTED, BLENDED = ("flip", "partner", "box"), ("flip", "partner", "lam", "box", "box_fill")


# 64 x 64 is four whole chunks per program, 32 x 40 ends within one; less than one: test_augment_combinations
@pytest.mark.parametrize(("H", "W", "fields"), [(64, 64, BLENDED), (32, 40, PASTED)])
def test_streaming(H, W, fields):
    x, plan = images(2, H, W), draw_plan(fields, 2, H, W, (H, W), "cpu")
    plan = plan._replace(flip=torch.tensor([True, False]), partner=torch.tensor([1, 0]))
    ours = augment(x, plan, **GIVEN, dtype=torch.float32)
    theirs = augment_reference(x, plan, **GIVEN, dtype=torch.float32, size=(H, W), normal=None)
    assert (ours - theirs).abs().max() < 2e-6


@pytest.mark.parametrize("W", [16, 15])
def test_half_types(W):
    x, plan = images(3, 16, W), draw_plan(("flip", "partner", "lam"), 3, 16, W, (16, W), "cpu")
    full = augment_reference(x, plan, **GIVEN, dtype=torch.float32, size=(16, W), normal=None)
    half = augment(x, plan, **GIVEN, dtype=torch.float16)
    assert (half != full.half()).float().mean() < 1e-2  # float32 moved by 5e-7 rounds elsewhere now and then
    assert (half.float() - full).abs().max() < 2**-10
    brain = augment(x, plan, **GIVEN, dtype=torch.bfloat16).float()
    assert ((brain - full).abs() <= full.abs() * 2**-7 + 1e-6).all()  # the interpreter truncates: one step, not half


def test_means_that_are_tensors():
    x = images(2, 8, 8)
    ours = augment(x, Plan(), mean=torch.tensor(MEAN), std=torch.tensor(STD), dtype=torch.float32)
    assert (ours - augment(x, Plan(), **GIVEN, dtype=torch.float32)).abs().max() < 1e-6


def test_images_that_are_not_aligned():
    x = images(2, 8, 8)
    shifted = torch.empty(x.numel() + 1, dtype=torch.uint8)[1:].view(x.shape).copy_(x)
    assert shifted.data_ptr() % 16
    plan = Plan(flip=torch.tensor([True, False]))
    ours = augment(shifted, plan, **GIVEN, dtype=torch.float32)
    assert (ours - augment(x.clone(), plan, **GIVEN, dtype=torch.float32)).abs().max() < 2e-6


@pytest.mark.parametrize("W", [8, 7])
def test_a_box_without_a_partner_is_ignored_without_a_check(W):
    """As on a GPU: fill 0 without a partner, in the first sample only."""
    box = torch.tensor([[1, 2, 6, 5]] * 3, dtype=torch.int32)
    plan = Plan(box=box, box_fill=torch.tensor([0, 1, 2], dtype=torch.int8))
    rest = {"dtype": torch.float32, "size": (8, W), "seed": 0, "indices": None, "step": 0, "normal": None}
    ours = augment_triton(images(3, 8, W), plan, **GIVEN, **rest)
    theirs = augment_reference(images(3, 8, W), plan, **GIVEN, dtype=torch.float32, size=(8, W), normal=None)
    assert (ours - theirs).abs().max() < 2e-6


@pytest.mark.parametrize("W", [8, 7])
def test_bad_values_are_nan_without_a_check(W):
    """As on a GPU, where nothing is checked: a partner or lam out of range makes its own sample NaN, and no other."""
    plan = Plan(partner=torch.tensor([1, 4, 2, -1]), lam=torch.tensor([0.5, 0.5, 1.5, 0.5]))
    rest = {"dtype": torch.float32, "size": (8, W), "seed": 0, "indices": None, "step": 0, "normal": None}
    ours = augment_triton(images(4, 8, W), plan, **GIVEN, **rest)
    assert ours.isnan().flatten(1).all(1).tolist() == [False, True, True, True]
    assert not ours[0].isnan().any()
