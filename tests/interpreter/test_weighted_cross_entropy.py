"""The kernels of class weights and float targets beyond the registry's examples: dtypes, reductions, odd sizes."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels import Targets, mixed_cross_entropy
from fastreg.kernels.cross_entropy.weighted import _WeightedCrossEntropy
from tests.kernels.cross_entropy.losses import check

SHAPES = [(d, C) for d in (torch.float32, torch.float16, torch.bfloat16, torch.float64) for C in (1, 2, 37, 1000)]
LONG = [(torch.float16, 1027), (torch.bfloat16, 2056), (torch.float32, 8193)]  # flat, a loop, both


@pytest.mark.parametrize(("dtype", "C"), [*SHAPES, *LONG], ids=str)
def test_loss_and_gradient(dtype, C):
    B = 7 if C <= 1000 else 3
    check(dtype, C, B, 0.1, "mean", weighted=True)
    check(dtype, C, B, torch.linspace(0, 1, B), "none", weighted=True)
    check(dtype, C, B, 0.0, "sum", "hard", weighted=True)
    check(dtype, C, B, 0.1, "mean", "dense")
    check(dtype, C, B, torch.linspace(0, 1, B), "none", "dense", weighted=True)


@pytest.mark.parametrize("C", [1000, 1027])
@pytest.mark.parametrize("reduction", [0, 1])
def test_bad_values_are_nan_without_a_check(C, reduction):
    """As on a GPU, where nothing is checked: a bad label or lam, or a NaN logit, shows in its row and nowhere else."""
    z = torch.randn(6, C)
    z[4, 3] = torch.nan
    z.requires_grad_()
    a, b = torch.tensor([C, 1, 1, 1, 1, 1]), torch.tensor([1, -1, 1, 1, 1, 1])
    lam = torch.tensor([0.5, 0.5, 1.5, torch.nan, 0.5, 0.5])
    rows = _WeightedCrossEntropy.apply(z, a, b, lam, None, torch.rand(C), None, 0.1, reduction)[0]
    assert rows.isnan().tolist() == ([True] * 5 + [False] if reduction == 0 else True)
    rows.sum().backward()
    assert z.grad.isnan().any(1).tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("C", [9, 1000, 2053])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_infinite_logits_of_classes_without_weight(C, eps):
    z, v, soft = torch.randn(2, C), torch.ones(C), torch.rand(2, C)
    z[:, 4], z[0, 6] = -torch.inf, 200.0
    v[4] = 0.0
    soft[:, 4] = 0.0
    for targets in (Targets(torch.tensor([1, 6]), torch.tensor([4, 4]), torch.ones(2)), soft):
        own = z.clone().requires_grad_()
        loss = mixed_cross_entropy(own, targets, eps, "none", class_weight=v)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert own.grad.isfinite().all()


def test_an_ignored_row_hides_its_logits():
    z = torch.full((5, 1000), torch.nan)
    z[4] = 0.0
    z.requires_grad_()
    y = torch.tensor([-100, -100, -100, -100, 7])
    loss = mixed_cross_entropy(z, y, 0.1, class_weight=torch.ones(1000))
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("C", [10, 1027])
def test_no_rows(C):
    z = torch.empty(0, C, requires_grad=True)
    for targets, weight in ((torch.empty(0, dtype=torch.int64), torch.ones(C)), (torch.empty(0, C), None)):
        loss = mixed_cross_entropy(z, targets, class_weight=weight)
        loss.backward()
        assert loss.isnan()
        assert z.grad.shape == (0, C)
