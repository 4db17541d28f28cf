"""Cross-entropy with class weights and float targets on the CPU, against torch."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from fastreg.kernels import Targets, mixed_cross_entropy, scored_cross_entropy
from tests.kernels.cross_entropy.losses import check, labels

REDUCTIONS = ("none", "sum", "mean")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("C", [1, 2, 37, 1000])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_and_gradient(dtype, C, reduction):
    for eps, kind in product((0.0, 0.1, 1.0, torch.linspace(0, 1, 7)), ("pair", "hard", "dense")):
        check(dtype, C, 7, eps, reduction, kind, weighted=True)
    check(dtype, C, 7, 0.1, reduction, "dense")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("eps", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [True, False])
def test_hard_labels_and_float_targets_are_pytorchs(reduction, eps, weighted):
    z, y, v = torch.randn(16, 10) * 3, torch.arange(16) % 10, torch.rand(10) * 3
    y[5] = -100
    v[2] = 0.0
    soft, several = torch.rand(16, 10), (torch.rand(16, 10) > 0.7).float()
    for targets in (y, soft, several):
        results = []
        for loss in (
            lambda z, t: mixed_cross_entropy(z, t, eps, reduction, class_weight=v if weighted else None),
            lambda z, t: F.cross_entropy(z, t, v if weighted else None, label_smoothing=eps, reduction=reduction),
        ):
            own = z.clone().requires_grad_()
            value = loss(own, targets)
            value.sum().backward()
            results.append((value.detach(), own.grad))
        torch.testing.assert_close(*results, rtol=2e-6, atol=5e-6)


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_pairs_are_the_sum_of_two_losses_of_pytorch(eps):
    z, v, (a, b, lam) = torch.randn(9, 12), torch.rand(12) * 3, labels(9, 12)
    rows = [F.cross_entropy(z, y, v, label_smoothing=eps, reduction="none") for y in (a, b)]
    mixed = lam * rows[0] + (1 - lam) * rows[1]
    targets = Targets(a, b, lam)
    torch.testing.assert_close(mixed_cross_entropy(z, targets, eps, "none", class_weight=v), mixed)
    divisor = sum((share * v[y.clamp(min=0)] * (y >= 0)).sum() for y, share in ((a, lam), (b, 1 - lam)))
    torch.testing.assert_close(mixed_cross_entropy(z, targets, eps, class_weight=v), mixed.sum() / divisor)


@pytest.mark.parametrize("kind", ["hard", "pair", "one-hot"])
def test_weights_of_one_are_no_weights(kind):
    z, targets = torch.randn(9, 12), labels(9, 12)
    if kind == "hard":
        targets = targets.a
    plain = mixed_cross_entropy(z, targets, 0.1)
    if kind == "one-hot":
        targets = Targets(*(t.clamp(min=0) for t in targets))
        plain = mixed_cross_entropy(z, targets, 0.1)
        lam = targets.lam.unsqueeze(1)
        targets = lam * F.one_hot(targets.a, 12) + (1 - lam) * F.one_hot(targets.b, 12)
    torch.testing.assert_close(mixed_cross_entropy(z, targets, 0.1, class_weight=torch.ones(12)), plain)


def test_a_weight_of_zero_ignores_infinite_logits():
    z = torch.randn(2, 6)
    z[:, 4] = -torch.inf
    v = torch.ones(6)
    v[4] = 0.0
    soft = torch.full((2, 6), 0.2)
    soft[:, 4] = 0.0
    for targets in (torch.tensor([1, 2]), torch.tensor([1, 4]), soft):
        own = z.clone().requires_grad_()
        loss = mixed_cross_entropy(own, targets, 0.1, class_weight=v)
        loss.backward()
        assert loss.isfinite()
        assert own.grad.isfinite().all()


def test_an_ignored_row_hides_its_logits():
    z = torch.full((2, 3), torch.nan)
    z[1] = 0.0
    z.requires_grad_()
    loss = mixed_cross_entropy(z, torch.tensor([-100, 0]), 0.1, class_weight=torch.ones(3))
    loss.backward()
    assert loss.isfinite()
    assert not z.grad[0].any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_rows_are_pytorchs_no_rows(reduction):
    z, v = torch.empty(0, 4, requires_grad=True), torch.ones(4)
    loss = mixed_cross_entropy(z, torch.empty(0, dtype=torch.int64), 0.1, reduction, class_weight=v)
    theirs = F.cross_entropy(z, torch.empty(0, dtype=torch.int64), v, reduction=reduction)
    torch.testing.assert_close(loss, theirs, equal_nan=True)
    loss = mixed_cross_entropy(z, torch.empty(0, 4), 0.1, reduction)
    torch.testing.assert_close(loss, F.cross_entropy(z, torch.empty(0, 4), reduction=reduction), equal_nan=True)


Z, Y = torch.randn(3, 4), torch.tensor([0, 1, 2])
BAD = {
    "float targets' shape": ((Z, torch.rand(3, 5)), {}, ValueError, r"`targets` has shape \[3, 5\]: give a tensor"),
    "float labels": (
        (Z, Y.float()),
        {},
        ValueError,
        r"shape \[3\]: give a tensor torch.float32 \[3, 4\]",
    ),
    "float targets' dtype": ((Z, torch.rand(3, 4).to(torch.float8_e5m2)), {}, TypeError, "`targets` is torch.float8"),
    "float targets' gradient": ((Z, torch.rand(3, 4, requires_grad=True)), {}, ValueError, "`targets` requires a grad"),
    "label": ((Z, Y + 2), {"class_weight": torch.ones(4)}, ValueError, r"`targets` holds \[4\]: give labels from 0"),
    "weights' shape": ((Z, Y), {"class_weight": torch.ones(3)}, ValueError, r"`class_weight` has shape \[3\]"),
    "weights' dtype": ((Z, Y), {"class_weight": torch.ones(4).double()}, TypeError, "`class_weight` is torch.float64"),
    "weights' gradient": (
        (Z, Y),
        {"class_weight": torch.ones(4, requires_grad=True)},
        ValueError,
        "`class_weight` requires a gradient",
    ),
    "smoothing": ((Z, Z.softmax(1), 1.5), {}, ValueError, "`label_smoothing` is 1.5: give a number from 0 to 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    arguments, more, error, words = BAD[name]
    with pytest.raises(error, match=words):
        mixed_cross_entropy(*arguments, **more)


def test_scores_need_labels():
    with pytest.raises(TypeError, match=r"`targets` is torch\.float32: give Targets or torch"):
        scored_cross_entropy(Z, Z.softmax(1))
