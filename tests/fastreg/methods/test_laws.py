"""The distributions of the methods' draws: shares, sizes and positions over many samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg import methods
from fastreg.methods.boxes import area


def test_gaussian_noise_strengths():
    indices = torch.arange(5000)
    plan, _ = methods.create("gaussian_noise", dataset="cifar100").draw(indices % 10, indices, 0)
    values, counts = plan.noise.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0, 0.04, 0.06, 0.08, 0.09, 0.10]))
    share = counts / 5000
    assert abs(share[0] - 0.5) < 0.03
    assert ((share[1:] - 0.1).abs() < 0.02).all()
    always, _ = methods.create("gaussian_noise", sigma=0.2, prob=1).draw(indices % 10, indices, 0)
    assert (always.noise == 0.2).all()


@pytest.mark.parametrize("size", [(32, 32), (48, 20)])
def test_random_erasing_boxes_follow_their_distribution(size):
    indices = torch.arange(4000)
    plan, _ = methods.create("random_erasing", size=size).draw(indices, indices, 0)
    box = plan.box.numpy()
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2] <= size[0]).all()
    assert (box[:, 3] <= size[1]).all()
    erased = box[area(box) > 0]
    assert abs(len(erased) / 4000 - 0.5) < 0.03
    share = area(erased) / (size[0] * size[1])
    assert share.min() > 0.01
    assert share.max() < 0.45
    height, width = erased[:, 2] - erased[:, 0], erased[:, 3] - erased[:, 1]
    assert (height / width).min() > 0.2
    assert (height / width).max() < 5
    if size == (32, 32):
        assert 0.17 < share.mean() < 0.22  # (0.02 + 0.4) / 2, less what does not fit
        assert abs(np.log(height / width).mean()) < 0.05
    assert (plan.box_fill == 2).all()


@pytest.mark.parametrize(("dataset", "prob"), [("cifar100", 0.5), ("cifar10", 0.5), ("imagenet", 1.0)])
def test_cutmix_is_applied_as_often_as_the_paper_does(dataset, prob):
    method = methods.create("cutmix", dataset=dataset, scope="sample")
    indices = torch.arange(3000)
    plan, targets = method.draw(indices % 10, indices, 0)
    cut = area(plan.box.numpy()) > 0
    assert abs(cut.mean() - prob) < 0.03
    assert plan.box.max() == (32 if dataset.startswith("cifar") else 224)
    clean = targets.lam.numpy()[~cut]
    assert (clean == 1).all()


def test_cutmix_boxes_follow_the_published_distribution():
    """Beta(1, 1) is uniform: the unclipped side is W sqrt(1 - u), the center uniform, so the mean is known."""
    size, count = 64, 20000
    indices = torch.arange(count)
    plan, targets = methods.create("cutmix", size=size, scope="sample", seed=1).draw(indices, indices, 0)
    rng = np.random.default_rng(0)
    side = (size * np.sqrt(1 - rng.random(count))).astype(int)
    y, x = rng.integers(size, size=(2, count))
    ends = [(np.clip(c - side // 2, 0, size), np.clip(c + side // 2, 0, size)) for c in (y, x)]
    expected = 1 - np.prod([b - a for a, b in ends], axis=0) / size**2
    lam = np.sort(targets.lam.numpy())
    assert abs(lam.mean() - expected.mean()) < 0.008
    tenths = [0.1, 0.3, 0.5, 0.7, 0.9]
    np.testing.assert_allclose(np.quantile(lam, tenths), np.quantile(expected, tenths), atol=0.02)
    assert abs(plan.box.float().mean() - size / 2) < 0.5


def test_mixups_lambda_follows_beta():
    indices = torch.arange(20000)
    for alpha in (0.2, 1.0):
        lam = methods.create("mixup", alpha=alpha, scope="sample").draw(indices, indices, 0)[1].lam
        assert abs(lam.mean() - 0.5) < 0.01
        assert abs(lam.var() - 1 / (4 * (2 * alpha + 1))) < 0.005  # Beta(a, a)'s variance
    some = methods.create("mixup", prob=0.25, scope="sample").draw(indices, indices, 0)[1].lam
    assert abs((some < 1).float().mean() - 0.25) < 0.02


def test_mixup_and_cutmix_are_chosen_with_their_probabilities():
    labels = indices = torch.arange(12)
    method = methods.create("mixup+cutmix", size=32)
    blended = 0
    for step in range(200):
        plan, _ = method.draw(labels, indices, step)
        blend, cut = (plan.lam < 1).any().item(), (area(plan.box.numpy()) > 0).any()
        assert not (blend and cut)
        blended += blend
    assert 70 < blended < 130
