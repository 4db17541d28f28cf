"""``fit_vector_scaling`` against scipy's L-BFGS-B on an independent loss, and the cases without a minimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from fastreg import metrics
from fastreg.errors import InputError


def drawn(count: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(w * logits + b)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator, dtype=torch.float64) * 2
    scale = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.3
    bias = torch.randn(classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits * scale + bias).softmax(1), 1, generator=generator).squeeze(1)
    return logits, labels, scale.numpy(), bias.numpy()


def by_scipy(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    n, k = logits.shape

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = logits * x[:k] + x[k:]
        p = softmax(z, axis=1)
        p[np.arange(n), labels] -= 1
        value = -log_softmax(z, axis=1)[np.arange(n), labels].mean()
        return value, np.concatenate([(p * logits).mean(0), p.mean(0)])

    start = np.concatenate([np.ones(k), np.zeros(k)])
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-10}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return found.x[:k], found.x[k:] - found.x[k:].mean(), found.fun


@pytest.mark.parametrize(("count", "classes"), [(200, 2), (900, 6)])
def test_scale_and_bias_are_those_of_scipys_minimum(count, classes):
    logits, labels, _, _ = drawn(count, classes)
    scale, bias, loss = by_scipy(logits.numpy(), labels.numpy())
    w, b = metrics.fit_vector_scaling(logits, labels)
    assert w.dtype == b.dtype == torch.float64
    np.testing.assert_allclose(w, scale, atol=1e-4)
    np.testing.assert_allclose(b, bias, atol=1e-4)
    own = torch.nn.functional.cross_entropy(logits * w + b, labels).item()
    assert own == pytest.approx(loss, abs=1e-9)
    identity = torch.nn.functional.cross_entropy(logits, labels).item()
    assert own < identity


def test_many_samples_find_the_scale_and_bias_of_the_labels():
    logits, labels, scale, bias = drawn(20_000, 3, seed=3)
    w, b = metrics.fit_vector_scaling(logits.float(), labels)
    np.testing.assert_allclose(w, scale, atol=0.1)
    np.testing.assert_allclose(b, bias - bias.mean(), atol=0.1)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_the_unit_of_the_logits_is_that_of_the_scale(factor):
    logits, labels, _, _ = drawn(400, 4)
    w, b = metrics.fit_vector_scaling(logits, labels)
    other, same = metrics.fit_vector_scaling(logits * factor, labels)
    np.testing.assert_allclose(other * factor, w, rtol=1e-4)
    np.testing.assert_allclose(same, b, atol=1e-5)


def test_excluded_classes_have_no_part():
    """-inf in a column leaves the sample to the other classes."""
    logits, labels, _, _ = drawn(400, 4)
    excluded = logits.clone()
    excluded[torch.arange(400), (labels + 1) % 4] = -torch.inf
    w, b = metrics.fit_vector_scaling(excluded, labels)
    large = torch.where(excluded.isinf(), -1e30, excluded)
    p = torch.where(excluded.isinf(), -torch.inf, w * large + b).softmax(1)
    slope = (p.sum(0) - torch.bincount(labels, minlength=4)) / 400
    assert slope.abs().max() < 1e-5  # the biases are at a minimum


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ([[1.0, 2.0], [float("nan"), 1.0]], [0, 1], "NaN or inf"),
        ([[1.0, 2.0], [float("inf"), 1.0]], [0, 1], "NaN or inf"),
        ([[-float("inf"), 2.0], [1.0, 2.0]], [0, 1], "-inf for a label"),
        ([[1.0, 2.0], [2.0, 1.0]], [0, 2], r"outside 0\.\.1"),
        ([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0]], [0, 1], "lacks 1 of 3 classes, such as 2"),
        ([[3.0, 2.0], [2.0, 3.0]], [0, 1], "no scale and bias have the smallest loss"),
        ([[2.0, 3.0], [3.0, 2.0]], [0, 1], "no scale and bias have the smallest loss"),
    ],
)
def test_a_minimum_that_does_not_exist(logits, labels, words):
    with pytest.raises(InputError, match=words):
        metrics.fit_vector_scaling(logits, labels)
