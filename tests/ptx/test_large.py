"""Tensors of more than 2^31 elements: untouched memory, of which only the last samples' CTAs run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.kernels import Plan, color_jitter, jpeg_round_trip
from fastreg.kernels.attacks.kernels import start_triton, step_triton
from fastreg.kernels.attacks.reference import fgsm_step_reference, start_in_ball_reference
from fastreg.kernels.augmentation.launch import augment_triton
from fastreg.kernels.augmentation.reference import augment_reference
from fastreg.kernels.augmentation.registry import MEAN, STD
from fastreg.kernels.color.reference import color_jitter_reference
from fastreg.kernels.cross_entropy import _backward, _forward
from fastreg.kernels.jpeg.reference import pillow_round_trip
from tests.ptx.case import Case, check, generator, levels, rounded

Choose = Callable[[str, tuple[int, ...]], list[int]]


def last(count: int) -> Choose:
    """The CTAs of the last ``count`` places on the second axis, or of each line where that axis is short."""

    def choose(kernel: str, grid: tuple[int, ...]) -> list[int]:
        x, y, _ = grid
        if y > 1000:
            return [i + j * x for j in range(y - count, y) for i in range(x)]
        return [i + j * x for j in range(y) for i in range(max(0, x - count), x)]

    return choose


def augment(side: int) -> Case:
    small = torch.cat((levels(2, side, side, 3), torch.full((1, side, side, 3), 7, dtype=torch.uint8)))
    shared = {"mean": MEAN, "std": STD, "size": (side, side), "normal": None}

    def call() -> Tensor:
        B = 65535
        x = torch.empty((B, side, side, 3), dtype=torch.uint8)
        x[-2:], x[0] = small[:2], small[2]
        partner, flip = torch.arange(B), torch.zeros(B, dtype=torch.bool)
        partner[-1], partner[-2], flip[-1] = B - 2, 0, True
        plan = Plan(flip=flip, partner=partner, lam=torch.full((B,), 0.25))
        return augment_triton(x, plan, dtype=torch.float16, seed=0, indices=None, step=0, **shared)[-2:].clone()

    def reference() -> Tensor:
        flip, partner = torch.tensor([False, True, False]), torch.tensor([2, 0, 2])
        plan = Plan(flip=flip, partner=partner, lam=torch.full((3,), 0.25))
        return augment_reference(small, plan, dtype=torch.float32, **shared)[:2]

    return Case(f"augment {side} px", call, reference, differs=rounded, only=last(2))


def loss(classes: int) -> Case:
    rows = (torch.randn(2, classes, generator=generator(classes)) * 4).bfloat16()
    labels = torch.tensor([classes - 1, 5])

    def call() -> tuple[Tensor, ...]:
        B = 2**31 // classes + 5
        z = torch.empty((B, classes), dtype=torch.bfloat16)
        a = torch.zeros(B, dtype=torch.int64)
        z[-2:], a[-2:] = rows, labels
        value, lse, total, *_ = _forward(z, a, None, None, None, 0.1, 0, False)
        grad = _backward(torch.ones(B), z, lse, total, a, None, None, None, 0.1, 0)
        return value[-2:].clone(), grad[-2:].clone()

    def reference() -> tuple[Tensor, ...]:
        z = rows.double().requires_grad_()
        value = F.cross_entropy(z, labels, reduction="none", label_smoothing=0.1)
        value.sum().backward()
        return value.detach(), z.grad

    def differs(result, expected, mode) -> str:
        value = (result[0] - expected[0]).abs().max()
        grad = (result[1].double() - expected[1]).abs()
        close = value < 5e-6 and (grad <= 5e-7 + 2**-8 * expected[1].abs()).all()
        return "" if close else f"off by {value:.3g}, the gradient by {grad.max():.3g}"

    def choose(kernel: str, grid: tuple[int, ...]) -> list[int]:
        return last(2 * classes // 1024 + 2 if kernel == "backward_flat_kernel" else 2)(kernel, grid)

    return Case(f"loss of {classes} classes", call, reference, differs=differs, only=choose)


def attacks() -> Case:
    count, shape = 14300, (3, 224, 224)
    own = [torch.rand((1, *shape), generator=generator(k)) - (k == 1) * 0.5 for k in range(3)]

    def call() -> tuple[Tensor, ...]:
        x, grad, origin = (torch.empty((count, *shape)) for _ in own)
        x[-1:], grad[-1:], origin[-1:] = own
        stepped = step_triton(x, grad, 0.1, True, origin, 0.3)[-1].clone()
        return stepped, start_triton(x, 0.1, 5, torch.arange(count), True)[-1].clone()

    def reference() -> tuple[Tensor, ...]:
        x, grad, origin = own
        stepped = fgsm_step_reference(x, grad, 0.1, True, origin, 0.3)[0]
        return stepped, start_in_ball_reference(x, 0.1, 5, torch.tensor([count - 1]), True)[0]

    return Case("attacks", call, reference, 1e-7, only=last(40))


def images() -> Iterator[Case]:
    factors = (1.1, 0.8, 1.2)

    def jitter(function, B: int) -> Tensor:
        x = torch.empty((B, 120, 120, 3), dtype=torch.uint8)
        x[-1:] = levels(1, 120, 120, 3)
        return function(x, *(torch.full((B,), factor) for factor in factors))[-1].clone()

    def jpeg(function, B: int) -> Tensor:
        x = torch.empty((B, 224, 224, 3), dtype=torch.uint8)
        x[-1:] = levels(1, 224, 224, 3)
        return function(x, 60)[-1].clone()

    call, reference = partial(jitter, color_jitter, 65535), partial(jitter, color_jitter_reference, 1)
    yield Case("color_jitter", call, reference, 0, 1e-4, 1, only=last(1))
    call, reference = partial(jpeg, jpeg_round_trip, 15000), partial(jpeg, pillow_round_trip, 1)
    yield Case("jpeg_round_trip", call, reference, only=last(20))


CASES = (augment(120), augment(121), loss(21841), loss(21848), attacks(), *images())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_large(case, emulator):
    check(emulator, case)
