"""The end of ``augment`` on float pixels equals ``augment`` on bytes, and keeps values outside [0, 1]."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels import Plan, augment
from fastreg.kernels.augmentation.float_pixels import normalize_and_mix
from fastreg.kernels.augmentation.registry import MEAN, STD, draw_plan

FIELDS = [(), ("partner", "lam"), ("partner", "box"), ("box", "box_fill"), ("partner", "lam", "box", "box_fill")]


@pytest.mark.parametrize("fields", FIELDS, ids="-".join)
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_halves_are_one_call(fields, flipped, dtype):
    images = torch.randint(0, 256, (6, 12, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    plan = draw_plan((*fields, "flip") if flipped else fields, 6, 12, 9, (12, 9), "cpu")
    whole = augment(images, plan, mean=MEAN, std=STD, dtype=dtype)
    pixels = augment(images, Plan(flip=plan.flip), mean=(0.0,) * 3, std=(1.0,) * 3, dtype=torch.float32)
    out = normalize_and_mix(pixels, plan, mean=MEAN, std=STD, dtype=dtype)
    assert out.dtype == dtype
    assert out.stride() == whole.stride()
    torch.testing.assert_close(out, whole, rtol=0.008 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)


def test_values_outside_the_unit_interval_are_kept():
    pixels = torch.tensor([-0.5, 1.5]).view(2, 1, 1, 1).expand(2, 3, 4, 4).contiguous()
    out = normalize_and_mix(pixels, Plan(), mean=(0.5,) * 3, std=(0.25,) * 3, dtype=torch.float32)
    assert out.amin().item() == -4
    assert out.amax().item() == 4
