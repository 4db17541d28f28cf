"""Every combination of a plan's fields that ``augment`` accepts, on each path of its kernels, against the reference."""

from __future__ import annotations

import itertools

import pytest
import torch

from fastreg.kernels import augment
from fastreg.kernels.augmentation import _check
from fastreg.kernels.augmentation.reference import augment_reference, draw_normals
from fastreg.kernels.augmentation.registry import MEAN, STD, draw_plan

B = 2
NOISES = ("quiet", "drawn", "given")
PATHS = [(g, n) for g in ("streamed", "odd") for n in NOISES] + [("cropped", "drawn"), ("resized", "quiet")]
GEOMETRIES = {"streamed": (8, 8, 8, 8), "odd": (5, 7, 5, 7), "cropped": (9, 10, 6, 7), "resized": (9, 10, 6, 7)}
MIXES = [
    mix
    for n in range(5)
    for mix in itertools.combinations(("partner", "lam", "box", "box_fill"), n)
    if not ("lam" in mix and "partner" not in mix)
    and not ("box_fill" in mix and "box" not in mix)
    and mix != ("box",)  # nothing to paste
]


def test_the_combinations_are_all_that_are_accepted():
    x = torch.zeros(B, 8, 8, 3, dtype=torch.uint8)
    for n in range(5):
        for mix in itertools.combinations(("partner", "lam", "box", "box_fill"), n):
            plan = draw_plan(mix, B, 8, 8, (8, 8), "cpu")
            try:
                _check(x, plan, MEAN, STD, torch.float32, None)
            except ValueError:
                assert mix not in MIXES
            else:
                assert mix in MIXES


@pytest.mark.parametrize("erased", [False, True])
@pytest.mark.parametrize(("geometry", "noise"), PATHS)
def test_agrees_with_the_reference(geometry, noise, erased):
    H, W, h, w = GEOMETRIES[geometry]
    x = torch.randint(0, 256, (B, H, W, 3), generator=torch.Generator().manual_seed(H), dtype=torch.uint8)
    indices, key = torch.arange(B) * 31 + 2**31, {"seed": 2**64 - 3, "step": 5}
    field = torch.randn(B, h, w, 3, generator=torch.Generator().manual_seed(1))
    if noise == "drawn":
        field = draw_normals(key["seed"], indices, key["step"], (h, w), x.device)
    given = key | ({"normal": field} if noise == "given" else {"indices": indices})
    fixed = (("crop",) if geometry == "cropped" else ()) + (("noise",) if noise != "quiet" else ())
    if erased:  # with noise in the box where there is noise elsewhere, and once without
        fixed += ("erase",) if noise == "quiet" else ("erase", "erase_noise")
    mixes = (MIXES[0], MIXES[-1]) if noise == "given" else MIXES  # the field's two sources are no fields of the plan
    mixes = (MIXES[0], MIXES[3], MIXES[-1]) if erased else mixes  # erasing comes before any of them
    flips = [("flip",)] if (h, w) != (H, W) or erased else [(), ("flip",)]  # of resampled pixels, as in "odd"
    for flip, mix in itertools.product(flips, mixes):
        fields = (*fixed, *flip, *mix)
        plan = draw_plan(fields, B, h, w, (H, W), "cpu")
        if "partner" in mix:
            plan = plan._replace(partner=torch.tensor([1, 0]))
        if erased:  # an inner box and one at the border, of whatever size
            plan = plan._replace(erase=torch.tensor([[1, 2, h - 1, w - 2], [h // 2, -3, h + 9, 4]], dtype=torch.int32))
        if "erase_noise" in fixed:
            plan = plan._replace(erase_noise=torch.tensor([1.5, 0.5]))
        ours = augment(x, plan, mean=MEAN, std=STD, dtype=torch.float32, size=(h, w), **given)
        theirs = augment_reference(x, plan, mean=MEAN, std=STD, dtype=torch.float32, size=(h, w), normal=field)
        error = (ours - theirs).abs()
        level = 1.01 / 255 / min(STD) if geometry in ("cropped", "resized") else 2e-6
        assert error.max() < level, fields
        # 9 to 6 pixels gives many half levels, whose rounding depends on the last digit of a weight
        assert (error > 2e-6).float().mean() < 0.03, fields
