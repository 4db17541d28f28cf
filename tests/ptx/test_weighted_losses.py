"""Class weights, float targets and the binary loss against float64: every switch of their kernels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fastreg.kernels import Targets, mixed_binary_cross_entropy, mixed_cross_entropy
from tests.kernels.cross_entropy import binary, losses
from tests.ptx.case import Case, check, generator
from tests.ptx.emulator import EXACT, Mode
from tests.ptx.test_cross_entropy import B16, F16, F32, ROUNDING


class Loss(NamedTuple):
    rows: int
    classes: int
    dtype: torch.dtype
    kind: str  # of targets: "pair", "hard", "dense"
    smoothing: float
    reduction: str
    weighted: bool = True
    # of the binary loss
    threshold: float | None = None
    sum_classes: bool = False
    upstream: str = "random"


WEIGHTED = (
    Loss(7, 2, B16, "pair", 0.1, "mean"),
    Loss(33, 10, F16, "dense", 1.0, "none"),
    Loss(5, 1000, B16, "pair", 0.1, "none"),
    Loss(1025, 10, B16, "hard", 0.0, "sum"),
    Loss(6, 1000, F16, "dense", 0.0, "mean", weighted=False),
    Loss(1, 1000, F32, "hard", 0.0, "mean"),
    Loss(3, 4099, B16, "pair", 0.1, "mean"),
    Loss(2, 1027, F32, "dense", 0.1, "none"),
    Loss(1, 2053, F16, "hard", 1.0, "none"),
    Loss(3, 4104, B16, "dense", 0.1, "sum"),
    Loss(3, 1, F32, "pair", 0.1, "mean"),
)
BINARY = (
    Loss(7, 2, B16, "pair", 0.1, "mean", threshold=0.2),
    Loss(33, 10, F16, "dense", 0.0, "none", sum_classes=True),
    Loss(5, 1000, B16, "pair", 0.1, "none", weighted=False, upstream="expanded"),
    Loss(3, 1000, F32, "hard", 0.0, "sum", threshold=0.5),
    Loss(3, 1027, F32, "dense", 0.1, "none", threshold=0.5),
    Loss(3, 1027, B16, "pair", 0.1, "none", weighted=False, upstream="transposed"),
    Loss(3, 4099, B16, "pair", 0.1, "mean"),
    Loss(1, 2053, F16, "hard", 1.0, "sum", threshold=0.0, weighted=False),
    Loss(2, 4104, B16, "dense", 0.0, "mean", weighted=False, sum_classes=True),
    Loss(2, 2053, F32, "pair", 0.1, "none", sum_classes=True),
)


def given(loss: Loss) -> tuple[Tensor, Targets | Tensor, Tensor | None]:
    g = generator(loss.rows, loss.classes, len(loss.reduction))
    logits = (torch.randn(loss.rows, loss.classes, generator=g) * 4).to(loss.dtype)
    targets: Targets | Tensor = losses.labels(loss.rows, loss.classes)
    if loss.kind == "hard":
        targets = targets.a
    elif loss.kind == "dense":
        targets = torch.rand(loss.rows, loss.classes, generator=g).to(loss.dtype)
        if loss in WEIGHTED:
            targets = (targets / targets.float().sum(1, keepdim=True)).to(loss.dtype)
    return logits, targets, torch.rand(loss.classes, generator=g) * 2 if loss.weighted else None


def upstream_of(loss: Loss, shape: tuple[int, ...]) -> Tensor:
    g = generator(*shape, 7)
    if loss.upstream == "expanded":
        return torch.tensor(0.7).expand(shape)
    grad = torch.randn(shape, generator=g)
    return torch.randn(shape[::-1], generator=g).T if loss.upstream == "transposed" else grad


def fused(loss: Loss) -> tuple[Tensor, Tensor]:
    logits, targets, weight = given(loss)
    own = logits.requires_grad_()
    if loss in BINARY:
        options = (loss.smoothing, loss.threshold, loss.sum_classes, loss.reduction)
        value = mixed_binary_cross_entropy(own, targets, *options, class_weight=weight)
    else:
        value = mixed_cross_entropy(own, targets, loss.smoothing, loss.reduction, class_weight=weight)
    value.backward(upstream_of(loss, value.shape))
    assert own.grad is not None
    return value.detach(), own.grad


def exact(loss: Loss) -> tuple[Tensor, Tensor]:
    logits, targets, weight = given(loss)
    z = logits.double().requires_grad_()
    if loss in BINARY:
        t, rows = targets, torch.ones(loss.rows, dtype=torch.float64)
        if loss.kind != "dense":
            pair = Targets(targets, targets, torch.ones(loss.rows)) if loss.kind == "hard" else targets
            t, rows = binary.dense(pair, loss.classes, loss.smoothing)
        value = binary.truth(z, t, rows, loss.threshold, loss.sum_classes, loss.reduction, weight)
    else:
        value = losses.truth(z, targets, loss.smoothing, loss.reduction, weight)
    value.backward(upstream_of(loss, value.shape).double())
    assert z.grad is not None
    return value.detach(), z.grad


def differ(loss: Loss, result: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], mode: Mode) -> str:
    if result[1].dtype != loss.dtype or result[0].dtype != torch.float32:
        return f"{result[0].dtype} and {result[1].dtype}"
    off = (result[0].double() - expected[0]).abs()
    terms = loss.rows if loss.reduction == "sum" else 1
    if not (off <= 1e-5 * terms + 3e-6 * expected[0].abs()).all():
        return f"the loss is off by {off.max():.3g}"
    relative, smallest = ROUNDING[loss.dtype]
    upstream = upstream_of(loss, expected[0].shape).double().abs().max()
    float32 = (2e-6 if mode is EXACT else 3e-6) * upstream
    bound = float32 + relative * expected[1].abs() * 1.0001 + smallest
    off = (result[1].double() - expected[1]).abs()
    return "" if (off <= bound).all() else f"the gradient is off by {off.max():.3g}, bound {bound.max():.3g}"


def cases() -> Iterator[Case]:
    for kind, rows in (("weighted", WEIGHTED), ("binary", BINARY)):
        for loss in rows:
            name = f"{kind} {tuple(loss)}"
            yield Case(name, partial(fused, loss), partial(exact, loss), differs=partial(differ, loss))


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_weighted_losses(case, emulator):
    check(emulator, case)
