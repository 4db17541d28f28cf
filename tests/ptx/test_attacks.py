"""fgsm_step, random starts, fgsm_attack and color_jitter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from fastreg.kernels import color_jitter, fgsm_attack, fgsm_step
from fastreg.kernels.attacks import start_in_ball
from fastreg.kernels.attacks.reference import fgsm_step_reference, start_in_ball_reference
from fastreg.kernels.color.reference import color_jitter_reference
from tests.ptx.case import Case, check, generator, levels

FLAT, LAST = torch.contiguous_format, torch.channels_last
IMAGES = (
    ((2, 3, 224, 224), torch.bfloat16, LAST, True),
    ((1, 1, 1, 1), torch.float32, FLAT, False),
    ((3, 3, 17, 19), torch.float16, FLAT, False),
    ((3, 3, 32, 32), torch.float32, LAST, False),
)


def steps() -> Iterator[Case]:
    for shape, dtype, layout, projected in IMAGES:
        x = torch.rand(shape, generator=generator(*shape)).contiguous(memory_format=layout)
        grad = torch.randn(shape, generator=generator(*shape, 1)).to(dtype).contiguous(memory_format=layout)
        grad[0, 0, 0, 0] = 0
        ball = {"origin": (x - 0.03).clamp(0, 1), "radius": 4 / 255} if projected else {"origin": None, "radius": None}
        yield Case(
            f"fgsm_step {shape}",
            partial(fgsm_step, x, grad, 8 / 255, **ball),
            partial(fgsm_step_reference, x, grad, 8 / 255, True, **ball),
            1e-7,
        )
        start = (x, 8 / 255, 2**63 + 5, torch.arange(len(x)) + 2**31, True)
        yield Case(f"start {shape}", partial(start_in_ball, *start), partial(start_in_ball_reference, *start), 1e-7)


def attack() -> Case:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 15 * 15, 10)
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(p.numel())) / 8)
    x, y = torch.rand(3, 3, 32, 32, generator=generator(4)), torch.tensor([1, 2, 9])
    random = {"random_start": True, "seed": 5, "indices": torch.arange(3)}
    run = partial(fgsm_attack, model, x, y, 8 / 255, steps=3, **random)
    # a gradient of almost zero may take either sign: a step apart, twice
    return Case("fgsm_attack", run, run, 1e-6, 0.002, 0.06)


def jitters() -> Iterator[Case]:
    for B, H, W, lit in ((2, 224, 224, True), (3, 4, 4, False), (1, 4, 8, False), (3, 32, 32, False)):
        factors = 0.6 + 0.8 * torch.rand((3, B), generator=generator(B, H, W))
        lighting = 0.1 * torch.randn((B, 3), generator=generator(B, H, W)) if lit else None
        given = (levels(B, H, W, 3), *factors, lighting)
        # halves of a level may go either way where products are contracted
        jitter, reference = (partial(f, *given) for f in (color_jitter, color_jitter_reference))
        yield Case(f"color_jitter {B}x{H}x{W}", jitter, reference, 0, 1e-4, 1)


@pytest.mark.parametrize("case", [*steps(), attack(), *jitters()], ids=lambda case: case.name)
def test_attacks(case, emulator):
    check(emulator, case)
