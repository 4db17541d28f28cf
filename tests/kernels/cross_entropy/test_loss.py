"""Cross-entropy on label pairs on the CPU against float64, and its errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fastreg.kernels import Targets, mixed_cross_entropy, scored_cross_entropy
from fastreg.kernels import cross_entropy as loss_module
from tests.kernels.cross_entropy.losses import check, labels

REDUCTIONS = ("none", "sum", "mean")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("C", [1, 2, 10, 37, 1000, 30_000])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_and_gradient(dtype, C, reduction):
    B = 7 if C < 20000 else 3
    for eps in (0.0, 0.1, 1.0, torch.linspace(0, 1, B)):
        check(dtype, C, B, eps, reduction)
    check(dtype, C, B, 0.1, reduction, kind="hard")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_hard_labels_are_pytorchs(reduction, eps):
    z, y = torch.randn(16, 10) * 3, torch.arange(16) % 10
    y[5] = -100
    theirs = F.cross_entropy(z, y, label_smoothing=eps, reduction=reduction)
    torch.testing.assert_close(mixed_cross_entropy(z, y, eps, reduction), theirs, rtol=1e-6, atol=1e-6)
    pair = Targets(y, y, torch.rand(16))
    torch.testing.assert_close(mixed_cross_entropy(z, pair, eps, reduction), theirs, rtol=1e-6, atol=1e-6)


def test_weights_of_equal_labels_add():
    z = torch.randn(2, 5, requires_grad=True)
    y = torch.tensor([3, 1])
    mixed_cross_entropy(z, Targets(y, y, torch.tensor([0.3, 0.6])), reduction="sum").backward()
    assert torch.allclose(z.grad, z.detach().softmax(1) - F.one_hot(y, 5), atol=1e-6)


def test_uniform_target_is_smoothing_one():
    z = torch.randn(4, 9)
    expected = -z.log_softmax(1).mean(1)
    assert torch.allclose(mixed_cross_entropy(z, torch.zeros(4, dtype=torch.int64), 1.0, "none"), expected, atol=1e-6)


def test_all_rows_ignored_has_no_mean():
    y = torch.full((3,), -100)
    assert mixed_cross_entropy(torch.randn(3, 4), y).isnan()
    assert mixed_cross_entropy(torch.randn(3, 4), y, reduction="sum") == 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_rows_are_pytorchs_no_rows(reduction):
    z, y = torch.empty(0, 4, requires_grad=True), torch.empty(0, dtype=torch.int64)
    loss = mixed_cross_entropy(z, Targets(y, y, torch.empty(0)), 0.1, reduction)
    torch.testing.assert_close(loss, F.cross_entropy(z, y, reduction=reduction), equal_nan=True)
    loss.sum().backward()
    assert z.grad.shape == (0, 4)


def test_nan_logits_give_nan_and_infinite_ones_do_not_affect_other_labels():
    z = torch.randn(3, 6)
    z[0, 2], z[1, 5] = torch.nan, -torch.inf
    loss = mixed_cross_entropy(z, Targets(*torch.tensor([[1, 1, 1], [5, 5, 5]]), torch.ones(3)), reduction="none")
    assert loss.isnan().tolist() == [True, False, False]
    assert loss[1].isfinite()
    assert mixed_cross_entropy(z, torch.tensor([1, 1, 1])).isnan()


def test_scores_are_those_of_the_same_logits():
    z, targets = torch.randn(9, 12, requires_grad=True), labels(9, 12)
    loss, hit, confidence = scored_cross_entropy(z, targets, 0.1)
    assert torch.equal(loss, mixed_cross_entropy(z, targets, 0.1, "none"))
    top, best = z.softmax(1).max(1)
    assert torch.allclose(confidence, top, atol=1e-6)
    assert torch.allclose(hit, targets.lam * (best == targets.a) + (1 - targets.lam) * (best == targets.b))
    assert not hit.requires_grad
    assert not confidence.requires_grad
    loss.sum().backward()
    assert z.grad.isfinite().all()


def test_the_first_of_equal_classes_is_the_hit():
    z = torch.tensor([[1.0, 2.0, 2.0]])
    hits = [scored_cross_entropy(z, torch.tensor([y]))[1].item() for y in range(3)]
    assert hits == [0.0, 1.0, 0.0]


def test_a_loss_scale_reaches_float16_gradients():
    z = torch.zeros(1024, 1000, dtype=torch.float16)
    y = torch.zeros(1024, dtype=torch.int64)
    ours = z.clone().requires_grad_()
    (mixed_cross_entropy(ours, y, 0.1) * 2.0**16).backward()
    exact = 2.0**16 / 1024 * (1 / 1000 - 0.1 / 1000)
    assert ours.grad[:, 1:].float().sub(exact).abs().max() < exact * 2**-10


@pytest.mark.parametrize("scale", [2.0**16, 2.0**40])
def test_a_grad_scaler_gets_its_gradients_back_or_skips_the_step(scale):
    """Scaled backward, then a step that unscales the gradients, or skips those that overflowed."""
    z = torch.randn(8, 10, dtype=torch.float16) * 0.1
    w, y = torch.nn.Parameter(torch.eye(10)), torch.arange(8)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    optimizer = torch.optim.SGD([w], lr=1.0)
    scaler.scale(mixed_cross_entropy(z @ w.half(), y, 0.1)).backward()
    scaler.step(optimizer)
    scaler.update()
    exact = torch.eye(10, requires_grad=True)
    F.cross_entropy(z.float() @ exact, y, label_smoothing=0.1).backward()
    if scale < 2**20:
        assert torch.allclose(torch.eye(10) - w.detach(), exact.grad, atol=2e-4)
    else:
        assert torch.equal(w.detach(), torch.eye(10))
        assert scaler.get_scale() == scale / 2


def test_logits_that_are_not_contiguous():
    z, y = torch.randn(6, 9, requires_grad=True), torch.arange(9) % 6
    loss = mixed_cross_entropy(z.T, y, 0.1)
    theirs = F.cross_entropy(z.T, y, label_smoothing=0.1)
    assert torch.allclose(loss, theirs, atol=1e-6)
    mine, expected = (torch.autograd.grad(x, z)[0] for x in (loss, theirs))
    assert torch.allclose(mine, expected, atol=1e-7)


def test_a_backward_is_its_kernel_and_nothing_else(monkeypatch):
    """No zeros are filled for outputs without a gradient: on a GPU each would be a launch."""
    seen: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(loss_module, "use_compiled", lambda *_: False)
    monkeypatch.setattr(loss_module, "backward_reference", lambda grad, logits, *_: torch.empty_like(logits))
    z = torch.randn(4, 5, requires_grad=True)
    rows, _, _ = scored_cross_entropy(z, torch.arange(4))
    upstream = torch.ones(4)
    with Watch():
        torch.autograd.grad(rows, z, upstream)
    assert set(seen) <= {"aten::empty_like", "aten::detach"}


Z, Y = torch.randn(3, 4), torch.tensor([0, 1, 2])
BAD = {
    "dtype": ((Z.long(), Y), TypeError, "`logits` is torch.int64: give torch.float32"),
    "shape": ((Z[0], Y), ValueError, r"`logits` has shape \[4\]: give \[B, C\]"),
    "no class": ((Z[:, :0], Y), ValueError, "C of 1 or more"),
    "label above": ((Z, Y + 2), ValueError, r"`targets` holds \[4\]: give labels from 0 to 3"),
    "label below": ((Z, Y - 1), ValueError, r"`targets` holds \[-1\]: give labels from 0"),
    "labels' dtype": ((Z, Y.int()), TypeError, "`targets` is torch.int32: give a tensor torch.int64"),
    "labels' shape": ((Z, Y[:2]), ValueError, r"`targets` has shape \[2\]: give a tensor torch.int64 \[3\]"),
    "device": ((Z, Y.to("meta")), ValueError, "`targets` is on meta"),
    "lam": ((Z, Targets(Y, Y, torch.tensor([0, 1, 1.5]))), ValueError, r"`lam` holds \[1.5\]: give values from 0 to 1"),
    "lam not a number": ((Z, Targets(Y, Y, torch.full((3,), torch.nan))), ValueError, "`lam` holds .nan"),
    "lam a number": ((Z, Targets(Y, Y, 0.5)), TypeError, "`lam` is float: give a tensor torch.float32"),
    "lam's dtype": ((Z, Targets(Y, Y, Y)), TypeError, "`lam` is torch.int64: give a tensor torch.float32"),
    "smoothing": ((Z, Y, 1.5), ValueError, "`label_smoothing` is 1.5: give a number from 0 to 1"),
    "smoothing per row": ((Z, Y, torch.rand(2)), ValueError, "`label_smoothing` has shape"),
    "smoothing of a row": (
        (Z, Y, torch.tensor([0, 0.5, 1.5])),
        ValueError,
        "`label_smoothing` holds .1.5.: give values from 0 to 1",
    ),
    "reduction": ((Z, Y, 0.0, "average"), ValueError, "`reduction` is 'average': give 'none', 'sum' or 'mean'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    arguments, error, words = BAD[name]
    with pytest.raises(error, match=words):
        mixed_cross_entropy(*arguments)
    with pytest.raises(error, match=words):
        scored_cross_entropy(*arguments)
