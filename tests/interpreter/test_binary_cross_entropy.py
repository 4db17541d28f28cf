"""The kernels of the binary cross-entropy beyond the registry's examples: dtypes, reductions, odd sizes, bad values."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels import Targets, mixed_binary_cross_entropy
from fastreg.kernels.cross_entropy.binary import _BinaryCrossEntropy, _forward
from fastreg.kernels.cross_entropy.binary_reference import BinaryTargets, Shape, backward_reference, forward_reference
from tests.kernels.cross_entropy.binary import check
from tests.kernels.cross_entropy.losses import labels

SHAPES = [(d, C) for d in (torch.float32, torch.float16, torch.bfloat16, torch.float64) for C in (1, 2, 37, 1000)]
LONG = [(torch.float16, 1027), (torch.bfloat16, 2056), (torch.float32, 8193)]  # flat, a loop, both


@pytest.mark.parametrize(("dtype", "C"), [*SHAPES, *LONG], ids=str)
def test_loss_and_gradient(dtype, C):
    B = 7 if C <= 1000 else 3
    check(dtype, C, B)
    check(dtype, C, B, threshold=0.2, sum_classes=True, kind="dense")
    check(dtype, C, B, eps=0.0, threshold=0.5, reduction="sum", kind="hard", weighted=True)
    check(dtype, C, B, reduction="none", weighted=True)
    check(dtype, C, B, reduction="none", sum_classes=True, kind="dense", weighted=True)


@pytest.mark.parametrize("upstream", ["expanded", "rows", "transposed"])
@pytest.mark.parametrize("C", [37, 1027])
def test_upstream_gradients_of_any_layout(C, upstream):
    check(torch.float32, C, 3, reduction="none", upstream=upstream)
    check(torch.float32, C, 3, reduction="none", upstream=upstream, kind="dense")


@pytest.mark.parametrize("C", [9, 1027])
def test_the_threshold_is_the_references(C):
    """At thresholds that are the targets themselves, where one more rounding would change the result."""
    lam = torch.rand(64, generator=torch.Generator().manual_seed(0))
    a, b, z = torch.zeros(64, dtype=torch.int64), torch.ones(64, dtype=torch.int64), torch.randn(64, C)
    for row in range(4):
        at = (lam[row] * (1 - 0.1) + 0.1 / C).item()
        pair = BinaryTargets(a, b, lam, None, None, 0.1, at)
        expected = forward_reference(z, pair, Shape(0, False))[0]
        assert (_forward(z, *pair, False, 0)[0] - expected).abs().max() < 1e-5


def test_extreme_logits():
    z = torch.tensor([[-3e38, -1e4, -80.0, -20.0, -1e-6, 0.0, 1e-6, 20.0, 80.0, 1e4, 3e38, torch.inf, -torch.inf]])
    for t in (0.0, 1e-4, 0.5, 1.0):
        pair = BinaryTargets(None, None, None, torch.full_like(z, t), None, 0.0, None)
        own = z.clone().requires_grad_()
        loss = mixed_binary_cross_entropy(own, torch.full_like(z, t), reduction="none")
        torch.testing.assert_close(loss.detach(), forward_reference(z, pair, Shape(0, False))[0], rtol=1e-5, atol=1e-37)
        loss.backward(torch.ones_like(z))
        expected = backward_reference(torch.ones_like(z), z, torch.ones(()), pair, Shape(0, False))
        rounding = 6e-8 if t == 0.5 else 1e-37  # there the gradient is a difference of two halves
        torch.testing.assert_close(own.grad, expected, rtol=1e-5, atol=rounding)


@pytest.mark.parametrize("C", [1000, 1027])
@pytest.mark.parametrize("reduction", [0, 1])
def test_bad_values_are_nan_without_a_check(C, reduction):
    """As on a GPU, where nothing is checked: a bad label or lam, or a NaN logit, shows in its row and nowhere else."""
    z = torch.randn(6, C)
    z[4, 3] = torch.nan
    z.requires_grad_()
    a, b = torch.tensor([C, 1, 1, 1, 1, 1]), torch.tensor([1, -1, 1, 1, 1, 1])
    lam = torch.tensor([0.5, 0.5, 1.5, torch.nan, 0.5, 0.5])
    rows = _BinaryCrossEntropy.apply(z, a, b, lam, None, None, 0.1, None, reduction == 0, reduction)[0]
    assert rows.isnan().tolist() == ([True] * 5 + [False] if reduction == 0 else True)
    rows.sum().backward()
    assert z.grad.isnan().any(1).tolist() == [True] * 5 + [False]


def test_an_ignored_row_hides_its_logits():
    z = torch.full((5, 1000), torch.nan)
    z[4] = 0.0
    z.requires_grad_()
    targets = labels(5, 1000)
    ignored = torch.full((4,), -100)
    targets = Targets(torch.cat([ignored, targets.a[:1]]), torch.cat([ignored, targets.b[:1]]), targets.lam)
    loss = mixed_binary_cross_entropy(z, targets)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("C", [10, 1027])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_no_rows(C, reduction):
    z = torch.empty(0, C, requires_grad=True)
    loss = mixed_binary_cross_entropy(z, torch.empty(0, dtype=torch.int64), reduction=reduction)
    loss.sum().backward()
    assert z.grad.shape == (0, C)
