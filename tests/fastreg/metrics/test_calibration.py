"""Calibration errors against plain versions from their definitions, and against torchmetrics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fastreg import metrics
from tests.support import peer


def sample(count: int, dtype: type = np.float64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences with ties, exact zeros and ones, and every edge of 20 bins; hits."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1, count).astype(dtype)
    special = np.concatenate((np.ones(9), np.zeros(3), np.linspace(0, 1, 21), np.full(11, 0.7))).astype(dtype)
    confidence[: len(special)] = special[:count]
    confidence = rng.permutation(confidence)
    return confidence, rng.random(count) < confidence**2


def gap(confidence: np.ndarray, correct: np.ndarray) -> float:
    return abs(correct.mean(dtype=np.float64) - confidence.mean(dtype=np.float64))


def plain_adaptive(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    groups = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return 100 * sum(len(g) / len(confidence) * gap(confidence[g], correct[g]) for g in groups if len(g))


def equal_width(confidence: np.ndarray, bins: int) -> list[np.ndarray]:
    """Masks of the bins (low, high]; 0 is in the first."""
    edges = np.linspace(0, 1, bins + 1).astype(confidence.dtype)
    edges[0] = -1
    return [(confidence > low) & (confidence <= high) for low, high in itertools.pairwise(edges)]


def plain_classwise(p: np.ndarray, labels: np.ndarray, bins: int) -> float:
    total = 0.0
    for k in range(p.shape[1]):
        for inside in equal_width(p[:, k], bins):
            if inside.any():
                total += inside.mean() * gap(p[inside, k], labels[inside] == k)
    return 100 * total / p.shape[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [1, 7, 20, 3000])
@pytest.mark.parametrize("count", [1, 2, 19, 20, 39, 2000, 2013])
def test_adaptive_error_is_that_of_numpys_groups(count, bins, dtype):
    confidence, correct = sample(count, dtype)
    expected = plain_adaptive(confidence, correct, bins)
    assert metrics.adaptive_calibration_error(confidence, correct, bins) == pytest.approx(expected, abs=1e-9)
    tensors = torch.from_numpy(confidence), torch.from_numpy(correct)
    assert metrics.adaptive_calibration_error(*tensors, bins=bins) == pytest.approx(expected, abs=1e-9)


def test_adaptive_error_by_hand():
    # groups (0.5, 0.6) and (0.8,): |1/2 - 0.55| * 2/3 + |1 - 0.8| / 3
    assert metrics.adaptive_calibration_error([0.8, 0.5, 0.6], [1, 0, 1], bins=2) == pytest.approx(10)
    assert metrics.adaptive_calibration_error([1.0] * 4, [1, 1, 1, 1]) == 0
    # equal confidences keep their order: the hits are in one group, the misses in the other
    assert metrics.adaptive_calibration_error([0.5] * 4, [1, 1, 0, 0], bins=2) == pytest.approx(50)
    assert metrics.adaptive_calibration_error([0.5] * 4, [1, 0, 1, 0], bins=2) == 0


def probabilities(count: int, classes: int, scale: float, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator) * scale
    return logits.softmax(1), torch.randint(0, classes, (count,), generator=generator)


@pytest.mark.parametrize(("classes", "scale"), [(2, 2.0), (5, 1.0), (10, 500.0), (1, 1.0)])
@pytest.mark.parametrize("bins", [1, 7, 20])
def test_classwise_error_is_that_of_each_class_alone(classes, scale, bins):
    """A scale of 500 saturates: most probabilities are exactly 0 or 1."""
    p, labels = probabilities(700, classes, scale)
    for given in (p, p.double()):
        expected = plain_classwise(given.numpy(), labels.numpy(), bins)
        assert metrics.classwise_calibration_error(given, labels, bins) == pytest.approx(expected, abs=1e-6)
        assert metrics.classwise_calibration_error(given.numpy(), labels.numpy(), bins) == pytest.approx(
            expected, abs=1e-6
        )


def test_classwise_error_does_not_depend_on_the_grouping_of_rows(monkeypatch):
    p, labels = probabilities(257, 4, 1.0)
    whole = metrics.classwise_calibration_error(p, labels)
    monkeypatch.setattr("fastreg.metrics.calibration.ROWS", 32)
    assert metrics.classwise_calibration_error(p, labels) == pytest.approx(whole, abs=1e-9)


def test_classwise_error_by_hand():
    assert metrics.classwise_calibration_error([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == 0
    assert metrics.classwise_calibration_error([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == 100
    # class 0: 0.6 and 0.8 in two bins, gaps 0.4 and 0.8; class 1: 0.4 and 0.2, the same; each bin half of the samples
    assert metrics.classwise_calibration_error([[0.6, 0.4], [0.8, 0.2]], [0, 1]) == pytest.approx(60)
    # a class without labels counts
    assert metrics.classwise_calibration_error([[0.7, 0.2, 0.1]], [0]) == pytest.approx(100 * (0.3 + 0.2 + 0.1) / 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [1, 7, 20])
@pytest.mark.parametrize("count", [1, 30, 1500])
def test_maximum_error_is_that_of_the_worst_bin(count, bins, dtype):
    confidence, correct = sample(count, dtype)
    expected = max(gap(confidence[m], correct[m]) for m in equal_width(confidence, bins) if m.any())
    assert metrics.maximum_calibration_error(confidence, correct, bins) == pytest.approx(100 * expected, abs=1e-9)


@pytest.mark.parametrize("bins", [1, 7, 20])
@pytest.mark.parametrize("count", [1, 30, 1500])
def test_root_mean_square_error_is_that_of_the_bins(count, bins):
    confidence, correct = sample(count)
    inside = [m for m in equal_width(confidence, bins) if m.any()]
    expected = sum(m.mean() * gap(confidence[m], correct[m]) ** 2 for m in inside) ** 0.5
    assert metrics.rms_calibration_error(confidence, correct, bins) == pytest.approx(100 * expected, abs=1e-9)
    assert metrics.rms_calibration_error(np.ones(4), [1, 0, 1, 1]) == pytest.approx(25)  # saturated


def test_maximum_error_by_hand():
    # the last bin is 0.1 from its accuracy, the other 0.3
    assert metrics.maximum_calibration_error([0.9, 0.9, 0.7], [1, 1, 1], bins=5) == pytest.approx(30)
    assert metrics.maximum_calibration_error([1.0, 1.0], [1, 0]) == pytest.approx(50)


@pytest.mark.parametrize("classes", [2, 10])
def test_errors_are_those_of_torchmetrics(classes):
    """Its bins are [low, high); random probabilities have no value on an edge."""
    theirs = peer("torchmetrics").functional.classification
    p, labels = probabilities(1000, classes, 2.0)
    confidence, guess = p.max(1)
    errors = (metrics.expected_calibration_error, metrics.maximum_calibration_error, metrics.rms_calibration_error)
    for norm, ours in zip(("l1", "max", "l2"), errors):
        expected = theirs.multiclass_calibration_error(p, labels, classes, n_bins=20, norm=norm)
        assert ours(confidence, guess == labels) == pytest.approx(100 * float(expected), abs=1e-4)
    by_class = [
        theirs.binary_calibration_error(p[:, k].contiguous(), (labels == k).long(), n_bins=20) for k in range(classes)
    ]
    ours = metrics.classwise_calibration_error(p, labels)
    assert ours == pytest.approx(100 * float(torch.stack(by_class).mean()), abs=1e-4)
