"""The losses and their gradients against float64, on labels that mix, repeat and are ignored."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.kernels import Targets, mixed_cross_entropy, scored_cross_entropy
from fastreg.kernels.cross_entropy import _CrossEntropy
from tests.ptx.case import Case, check, generator
from tests.ptx.emulator import EXACT, Mode

F32, F16, B16 = torch.float32, torch.float16, torch.bfloat16
# Rounding of a gradient to its dtype: relative, smallest number.
ROUNDING = {F32: (0.0, 0.0), F16: (2**-11, 3e-8), B16: (2**-8, 0.0)}


class Loss(NamedTuple):
    rows: int
    classes: int
    dtype: torch.dtype
    smoothing: Any  # "rows": one per row
    reduction: str
    hard: bool = False
    scored: bool = False
    strided: bool = False  # the upstream gradient


LOSSES = (
    Loss(7, 2, B16, 0.1, "mean"),
    Loss(33, 10, F16, 1.0, "none", strided=True),
    Loss(1025, 10, B16, 0.0, "sum", hard=True),
    Loss(5, 1000, B16, 0.1, "mean", scored=True),
    Loss(6, 1000, F16, "rows", "none"),
    Loss(1, 1000, F32, 0.0, "mean", hard=True),
    Loss(3, 21841, B16, 0.1, "mean"),
    Loss(1, 21841, F16, 1.0, "none", hard=True),
    Loss(3, 21848, B16, "rows", "sum", scored=True),
    Loss(3, 1, F32, 0.1, "mean"),
    Loss(3, 3000, B16, 0.1, "none"),
)


def losses() -> Iterator[Case]:
    for loss in LOSSES:
        g = generator(loss.rows, loss.classes, len(loss.reduction))
        logits = (torch.randn(loss.rows, loss.classes, generator=g) * 4).to(loss.dtype)
        a, b = torch.randint(0, loss.classes, (2, loss.rows), generator=g)
        lam = torch.rand(loss.rows, generator=g)
        b[0], lam[1 % loss.rows] = a[0], 1.0
        if loss.rows > 4:
            lam[2], a[3], b[3], a[4] = 0.0, -100, -100, -100
        targets = Targets(a, a, torch.ones(loss.rows)) if loss.hard else Targets(a, b, lam)
        shape = (loss.rows,) if loss.reduction == "none" else ()
        upstream = torch.randn((loss.rows, 3), generator=g)[:, 1] if loss.strided else torch.randn(shape, generator=g)
        smoothing = loss.smoothing
        if smoothing == "rows":
            smoothing = torch.linspace(0, 1, loss.rows)
        given = (loss, logits, targets, smoothing, upstream)
        yield Case(
            str(tuple(loss)), partial(fused, *given), partial(exact, *given), differs=partial(differ, loss, upstream)
        )


def fused(loss: Loss, logits: Tensor, targets: Targets, smoothing, upstream: Tensor) -> tuple[Tensor, ...]:
    own = logits.clone().requires_grad_()
    function = scored_cross_entropy if loss.scored else mixed_cross_entropy
    value = function(own, targets.a if loss.hard else targets, smoothing, loss.reduction)
    value, *scores = value if loss.scored else (value,)
    value.backward(upstream)
    assert own.grad is not None
    return value.detach(), own.grad, *scores


def exact(loss: Loss, logits: Tensor, targets: Targets, smoothing, upstream: Tensor) -> tuple[Tensor, ...]:
    z = logits.double().clone().requires_grad_()
    rows, weight = torch.zeros(2, len(z), dtype=torch.float64)
    eps = torch.as_tensor(smoothing, dtype=torch.float64)
    lam = targets.lam.double()
    for label, share in ((targets.a, lam), (targets.b, 1 - lam)):
        kept = label != -100
        hard = F.cross_entropy(z, label, reduction="none")
        rows = rows + share * ((1 - eps) * hard - eps * z.log_softmax(1).mean(1) * kept)
        weight = weight + share * kept
    value = {"none": rows, "sum": rows.sum(), "mean": rows.sum() / weight.sum()}[loss.reduction]
    value.backward(upstream.double())
    confidence, best = z.detach().softmax(1).max(1)
    assert z.grad is not None
    return value.detach(), z.grad, lam * (best == targets.a) + (1 - lam) * (best == targets.b), confidence


def differ(loss: Loss, upstream: Tensor, result, expected, mode: Mode) -> str:
    if result[1].dtype != loss.dtype or result[0].dtype != torch.float32:
        return f"{result[0].dtype} and {result[1].dtype}"
    off = (result[0].double() - expected[0]).abs()
    if not (off <= 5e-6 * (loss.rows if loss.reduction == "sum" else 1)).all():
        return f"the loss is off by {off.max():.3g}"
    kept = loss.rows - 2 if loss.rows > 4 else loss.rows
    weight = upstream.double().abs().reshape(-1, 1) / (kept if loss.reduction == "mean" else 1)
    relative, smallest = ROUNDING[loss.dtype]
    # float32 keeps a log-sum-exp of 12 to 5e-7; half as much again with approximate instructions at their worst
    bound = (1e-6 if mode is EXACT else 1.5e-6) * weight + relative * expected[1].abs() * 1.0001 + smallest
    off = (result[1].double() - expected[1]).abs()
    if not (off <= bound).all():
        return f"the gradient is off by {off.max():.3g}, {(off / bound).max():.3g} times the bound"
    if loss.scored and not torch.equal(result[2].double(), expected[2].double()):
        return "hits differ"
    if loss.scored and (off := (result[3].double() - expected[3]).abs().max()) > 2e-6:
        return f"the confidence is off by {off:.3g}"
    return ""


def bad_values(classes: int) -> Case:
    """Bad labels, a bad lambda and a NaN make their row NaN, and no other."""

    def call() -> tuple[Tensor, ...]:
        z = torch.randn(6, classes, generator=generator(classes))
        z[4, 3] = torch.nan
        z.requires_grad_()
        a, b = torch.tensor([classes, 1, 1, 1, 1, 1]), torch.tensor([1, -1, 1, 1, 1, 1])
        lam = torch.tensor([0.5, 0.5, 1.5, torch.nan, 0.5, 0.5])
        out = _CrossEntropy.apply(z, a, b, lam, None, 0.1, 0, False)[0]
        out.sum().backward()
        return out.detach(), z.grad

    def differ(result, expected, mode) -> str:
        value, grad = result
        good = value.isnan().tolist() == [True] * 5 + [False] and grad[:5].isnan().all() and not grad[5].isnan().any()
        return "" if good else f"NaN is elsewhere: {value.tolist()}, {grad.isnan().sum(1).tolist()}"

    return Case(f"bad values, {classes} classes", call, lambda: None, differs=differ)


def infinite_logits(classes: int) -> Case:
    def call() -> tuple[Tensor, ...]:
        z = torch.randn(2, classes, generator=generator(classes))
        z[:, 4], z[1, 6] = -torch.inf, -200.0
        z.requires_grad_()
        targets = Targets(torch.tensor([1, 6]), torch.tensor([4, 4]), torch.ones(2))
        out = mixed_cross_entropy(z, targets, reduction="none")
        out.sum().backward()
        return out.detach(), z.grad

    def differ(result, expected, mode) -> str:
        return "" if all(x.isfinite().all() for x in result) else "not finite"

    return Case(f"infinite logits, {classes} classes", call, lambda: None, differs=differ)


def no_rows() -> Case:
    def call() -> Tensor:
        z = torch.empty(0, 10, requires_grad=True)
        out = mixed_cross_entropy(z, torch.empty(0, dtype=torch.int64), reduction="sum")
        out.backward()
        return out.detach()

    return Case("no rows", call, lambda: torch.zeros(()))


CASES = (*losses(), *(make(classes) for make in (bad_values, infinite_logits) for classes in (1000, 8193)), no_rows())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cross_entropy(case, emulator):
    check(emulator, case)
