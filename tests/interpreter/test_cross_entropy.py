"""The kernels of the cross-entropy beyond the registry's examples: dtypes, reductions, odd sizes, bad values."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels import Targets, mixed_cross_entropy, scored_cross_entropy
from fastreg.kernels.cross_entropy import _CrossEntropy
from tests.kernels.cross_entropy.losses import check

SHAPES = [(d, C) for d in (torch.float32, torch.float16, torch.bfloat16, torch.float64) for C in (1, 2, 37, 1000)]


@pytest.mark.parametrize(("dtype", "C"), [*SHAPES, (torch.float16, 8193), (torch.bfloat16, 30_000)], ids=str)
def test_loss_and_gradient(dtype, C):
    B = 7 if C <= 8192 else 3 if C < 20_000 else 1
    check(dtype, C, B, 0.1, "mean")
    check(dtype, C, B, torch.linspace(0, 1, B), "none")
    check(dtype, C, B, 0.0, "sum", kind="hard")


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_same_as_ligers_kernel(reduction):
    liger = pytest.importorskip("liger_kernel.transformers.cross_entropy", reason="liger-kernel is not installed")
    z, y = torch.randn(5, 300) * 4, torch.tensor([3, 299, -100, 0, 7])
    upstream = torch.rand(5 if reduction == "none" else ())
    results = []
    for loss in (
        liger.LigerCrossEntropyLoss(label_smoothing=0.1, reduction=reduction),
        lambda z, y: mixed_cross_entropy(z, y, 0.1, reduction),
    ):
        own = z.clone().requires_grad_()
        value = loss(own * 1.0, y)  # Liger writes its gradient into the logits that it is given
        value.backward(upstream)
        results.append((value.detach(), own.grad))
    torch.testing.assert_close(*results, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("C", [1000, 8193, 8200])
def test_bad_values_are_nan_without_a_check(C):
    """As on a GPU, where nothing is checked: a bad label or lam, or a NaN logit, makes its row NaN, and no other."""
    z = torch.randn(6, C)
    z[4, 3] = torch.nan
    a, b = torch.tensor([C, 1, 1, 1, 1, 1]), torch.tensor([1, -1, 1, 1, 1, 1])
    lam = torch.tensor([0.5, 0.5, 1.5, torch.nan, 0.5, 0.5])
    loss = _CrossEntropy.apply(z, a, b, lam, None, 0.1, 0, False)[0]
    assert loss.isnan().tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("C", [10, 8193])
def test_the_first_of_equal_classes_is_the_hit(C):
    z = torch.zeros(3, C)
    z[:, C - 3] = z[:, C - 1] = 2.0
    hit = scored_cross_entropy(z, torch.tensor([C - 1, C - 3, 0]))[1]
    assert hit.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("C", [10, 8193, 8200])
def test_no_rows(C):
    z = torch.empty(0, C, requires_grad=True)
    loss = mixed_cross_entropy(z, torch.empty(0, dtype=torch.int64))
    loss.backward()
    assert loss.isnan()
    assert z.grad.shape == (0, C)


def test_infinite_logits_do_not_affect_other_labels():
    z = torch.randn(2, 9)
    z[:, 4] = -torch.inf
    targets = Targets(torch.tensor([1, 1]), torch.tensor([4, 4]), torch.ones(2))
    assert mixed_cross_entropy(z, targets, reduction="none").isfinite().all()
