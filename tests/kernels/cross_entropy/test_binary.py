"""Binary cross-entropy on label pairs on the CPU, against timm, torch in float64, and on extreme logits."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from fastreg.kernels import Targets, mixed_binary_cross_entropy
from fastreg.kernels.cross_entropy.binary_reference import loss_slopes, loss_terms
from tests.kernels.cross_entropy.binary import check
from tests.support import peer

REDUCTIONS = ("none", "sum", "mean")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("C", [1, 2, 37, 1000])
@pytest.mark.parametrize(("sum_classes", "reduction"), list(product((False, True), REDUCTIONS)))
def test_loss_and_gradient(dtype, C, sum_classes, reduction):
    for kind, threshold in product(("pair", "hard", "dense"), (None, 0.2)):
        check(dtype, C, 7, threshold=threshold, sum_classes=sum_classes, reduction=reduction, kind=kind)
    for eps in (0.0, 1.0):
        check(dtype, C, 7, eps=eps, sum_classes=sum_classes, reduction=reduction, weighted=True)


@pytest.mark.parametrize("upstream", ["expanded", "rows", "transposed"])
def test_upstream_gradients_of_any_layout(upstream):
    check(torch.float32, 37, 7, reduction="none", upstream=upstream)


@pytest.mark.parametrize(("threshold", "sum_classes"), list(product((None, 0.0, 0.2), (False, True))))
@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("C", [7, 100])
def test_the_same_as_timms(C, eps, threshold, sum_classes):
    """Hard labels, and the dense targets of timm's Mixup."""
    timm = peer("timm.loss")
    mixup_target = peer("timm.data.mixup").mixup_target
    y, z = torch.arange(8) % C, torch.randn(8, C) * 3
    theirs = timm.BinaryCrossEntropy(eps, target_threshold=threshold, sum_classes=sum_classes)
    dense = mixup_target(y, C, lam=0.75, smoothing=eps)  # pairs with the flipped batch
    pair = Targets(y, y.flip(0), torch.full((8,), 0.75))
    for given, other in ((y, y), (pair, dense), (dense, dense)):
        losses, gradients = [], []
        for loss in (theirs, lambda z, t: mixed_binary_cross_entropy(z, t, eps, threshold, sum_classes)):
            own = z.clone().requires_grad_()
            value = loss(own, other if loss is theirs else given)
            value.backward()
            losses.append(value.detach())
            gradients.append(own.grad)
        torch.testing.assert_close(*losses, rtol=2e-6, atol=1e-6)
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_class_weights_are_torchs(reduction):
    z, t, v = torch.randn(5, 9) * 3, torch.rand(5, 9), torch.rand(9) * 3
    ours = mixed_binary_cross_entropy(z, t, reduction=reduction, class_weight=v)
    theirs = F.binary_cross_entropy_with_logits(z.double(), t.double(), v.double(), reduction=reduction)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-6)


def test_the_gradient_is_the_derivative():
    """Of the reference's formulas, in float64."""

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z, t):
            ctx.save_for_backward(z, t)
            return loss_terms(z, t)

        @staticmethod
        def backward(ctx, grad):
            return grad * loss_slopes(*ctx.saved_tensors), None

    z = torch.linspace(-30, 30, 80, dtype=torch.float64, requires_grad=True)  # 0, where the formula changes, is between
    for t in (torch.zeros(80), torch.ones(80), torch.rand(80)):
        assert torch.autograd.gradcheck(Loss.apply, (z, t.double()))


@pytest.mark.parametrize("t", [0.0, 1e-4, 0.5, 1.0])
def test_extreme_logits_are_exact(t):
    """To 1e-6 of the value itself, where torch's float32 formula has lost every digit of the gradient."""
    z = torch.tensor([[-3e38, -1e4, -80.0, -20.0, -1e-6, 0.0, 1e-6, 20.0, 80.0, 1e4, 3e38]])
    ours, theirs = z.clone().requires_grad_(), z.double().requires_grad_()
    loss = mixed_binary_cross_entropy(ours, torch.full_like(z, t), reduction="none")
    target = torch.full_like(z, t).double()
    expected = -target * F.logsigmoid(theirs) - (1 - target) * F.logsigmoid(-theirs)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-37)
    loss.sum().backward()
    expected.sum().backward()
    rounding = 6e-8 if t == 0.5 else 1e-37  # there the gradient itself is a difference of two halves
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-6, atol=rounding)


def test_infinite_logits_on_their_target_have_no_loss():
    z = torch.tensor([[-torch.inf, torch.inf, torch.inf, -torch.inf, torch.nan]], requires_grad=True)
    loss = mixed_binary_cross_entropy(z, torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]]), reduction="none")
    assert loss[0, :4].tolist() == [0.0, 0.0, torch.inf, torch.inf]
    assert loss[0, 4].isnan()
    loss[:, :4].sum().backward()
    assert z.grad[0, :4].tolist() == [0.0, 0.0, 1.0, -1.0]


@pytest.mark.parametrize("threshold", [None, 0.6])
def test_an_ignored_label_leaves_its_row_to_the_other(threshold):
    """The row is that of the other label alone, and counts with its share; a row without labels counts nothing."""
    z, lam = torch.randn(4, 6), torch.tensor([0.25, 0.25, 0.25, 0.25])
    a, b = torch.tensor([2, -100, 2, -100]), torch.tensor([4, 4, -100, -100])
    options = (0.1, threshold)
    rows = mixed_binary_cross_entropy(z, Targets(a, b, lam), *options, reduction="none")
    alone = [mixed_binary_cross_entropy(z, torch.full((4,), y), *options, reduction="none") for y in (2, 4)]
    both = 0.25 * alone[0] + 0.75 * alone[1]
    torch.testing.assert_close(rows[1], 0.75 * alone[1][1])
    torch.testing.assert_close(rows[2], 0.25 * alone[0][2])
    assert not rows[3].any()
    if threshold is None:  # linear in the target, so that each label has its part of the row
        torch.testing.assert_close(rows[0], both[0])
    mean = mixed_binary_cross_entropy(z, Targets(a, b, lam), *options)
    torch.testing.assert_close(mean, rows.sum() / (6 * (1 + 0.75 + 0.25)))
    mean = mixed_binary_cross_entropy(z, Targets(a, b, lam), *options, sum_classes=True)
    torch.testing.assert_close(mean, rows.sum() / 2)


def test_an_ignored_row_hides_its_logits():
    z = torch.full((2, 3), torch.nan)
    z[1] = 0.0
    z.requires_grad_()
    loss = mixed_binary_cross_entropy(z, torch.tensor([-100, 0]))
    loss.backward()
    assert loss.isfinite()
    assert not z.grad[0].any()


def test_labels_that_meet_and_shares_of_0_and_1_are_hard_labels():
    z, y = torch.randn(3, 5), torch.tensor([3, 1, 0])
    other = torch.tensor([3, 2, 0])
    hard = mixed_binary_cross_entropy(z, y, 0.1, reduction="none")
    pair = Targets(y, other, torch.tensor([0.3, 1.0, 0.9]))
    torch.testing.assert_close(mixed_binary_cross_entropy(z, pair, 0.1, reduction="none"), hard)
    pair = Targets(other, y, torch.tensor([0.3, 0.0, 0.9]))
    torch.testing.assert_close(mixed_binary_cross_entropy(z, pair, 0.1, reduction="none"), hard)


def test_the_threshold_compares_in_float32_and_strictly():
    z, y = torch.zeros(1, 2), torch.tensor([0])
    pair = Targets(y, y + 1, torch.tensor([0.75]))
    for threshold, targets in ((0.74, [1.0, 0.0]), (0.75, [0.0, 0.0]), (0.25, [1.0, 0.0]), (0.24, [1.0, 1.0])):
        own = z.clone().requires_grad_()
        mixed_binary_cross_entropy(own, pair, 0.0, threshold, reduction="sum").backward()
        assert (0.5 - own.grad).tolist() == [targets]


def test_all_rows_ignored_and_no_rows_have_no_mean():
    y = torch.full((3,), -100)
    assert mixed_binary_cross_entropy(torch.randn(3, 4), y).isnan()
    assert mixed_binary_cross_entropy(torch.randn(3, 4), y, reduction="sum") == 0
    z = torch.empty(0, 4, requires_grad=True)
    for reduction in REDUCTIONS:
        loss = mixed_binary_cross_entropy(z, y[:0], reduction=reduction)
        assert loss.isnan().all() if reduction == "mean" else not loss.any()
        loss.sum().backward()
    assert z.grad.shape == (0, 4)


def test_logits_and_targets_that_are_not_contiguous():
    z, t = torch.randn(6, 9, requires_grad=True), torch.rand(6, 9)
    loss = mixed_binary_cross_entropy(z.T, t.T)
    theirs = F.binary_cross_entropy_with_logits(z.T, t.T)
    assert torch.allclose(loss, theirs, atol=1e-6)
    mine, expected = (torch.autograd.grad(x, z)[0] for x in (loss, theirs))
    assert torch.allclose(mine, expected, atol=1e-7)


def test_a_loss_scale_reaches_float16_gradients():
    z = torch.zeros(256, 1000, dtype=torch.float16, requires_grad=True)
    (mixed_binary_cross_entropy(z, torch.zeros(256, dtype=torch.int64)) * 2.0**16).backward()
    exact = 2.0**16 / 256_000 * 0.5
    assert z.grad[:, 1:].float().sub(exact).abs().max() < exact * 2**-10


Z, Y, T = torch.randn(3, 4), torch.tensor([0, 1, 2]), torch.rand(3, 4)
BAD = {
    "logits' dtype": ((Z.long(), Y), {}, TypeError, "`logits` is torch.int64: give torch.float32"),
    "shape": ((Z[0], Y), {}, ValueError, r"`logits` has shape \[4\]: give \[B, C\]"),
    "label above": ((Z, Y + 2), {}, ValueError, r"`targets` holds \[4\]: give labels from 0 to 3"),
    "labels' dtype": ((Z, Y.int()), {}, TypeError, "`targets` is torch.int32: give a tensor torch.int64"),
    "probabilities' shape": ((Z, T[:, :2]), {}, ValueError, r"`targets` has shape \[3, 2\]: give .* \[3, 4\]"),
    "probabilities' dtype": ((Z, T.to(torch.float8_e5m2)), {}, TypeError, "`targets` is torch.float8_e5m2: give"),
    "probabilities' device": ((Z, T.to("meta")), {}, ValueError, "`targets` is on meta"),
    "probabilities' gradient": ((Z, T.clone().requires_grad_()), {}, ValueError, r"give targets.detach\(\)"),
    "lam": ((Z, Targets(Y, Y, torch.tensor([0, 1, 1.5]))), {}, ValueError, r"`lam` holds \[1.5\]"),
    "smoothing": ((Z, Y, 1.5), {}, ValueError, "`label_smoothing` is 1.5: give a number from 0 to 1"),
    "threshold": ((Z, Y, 0.1, "0.2"), {}, TypeError, "`target_threshold` is str: give a number or None"),
    "reduction": ((Z, Y, 0.0, None, False, "average"), {}, ValueError, "`reduction` is 'average'"),
    "weights' shape": ((Z, Y), {"class_weight": torch.ones(3)}, ValueError, r"`class_weight` has shape \[3\]"),
    "weights' dtype": ((Z, Y), {"class_weight": torch.ones(4).double()}, TypeError, "`class_weight` is torch.float64"),
    "weights' gradient": (
        (Z, Y),
        {"class_weight": torch.ones(4, requires_grad=True)},
        ValueError,
        "`class_weight` req",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    arguments, more, error, words = BAD[name]
    with pytest.raises(error, match=words):
        mixed_binary_cross_entropy(*arguments, **more)
