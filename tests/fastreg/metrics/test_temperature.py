"""``fit_temperature`` against scipy's minimizer and L-BFGS, and the cases without a minimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fastreg import metrics
from fastreg.errors import InputError


def drawn(count: int, classes: int, temperature: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator, dtype=torch.float64) * 3
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator).squeeze(1)
    return logits, labels


def by_scipy(logits: np.ndarray, labels: np.ndarray) -> float:
    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / math.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean()

    found = minimize_scalar(loss, bracket=(-1, 1), options={"xtol": 1e-12})
    return math.exp(found.x)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
@pytest.mark.parametrize(("count", "classes"), [(60, 2), (400, 10), (5000, 3)])
def test_the_temperature_is_that_of_scipys_minimum(count, classes, temperature):
    logits, labels = drawn(count, classes, temperature)
    expected = by_scipy(logits.numpy(), labels.numpy())
    assert metrics.fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-6)
    assert metrics.fit_temperature(logits.numpy(), labels.numpy()) == pytest.approx(expected, rel=1e-6)
    single = metrics.fit_temperature(logits.float(), labels)
    assert single == pytest.approx(by_scipy(logits.float().double().numpy(), labels.numpy()), rel=1e-6)


def test_the_temperature_is_that_of_lbfgs():
    logits, labels = drawn(800, 6, 2.5, seed=3)
    temperature = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([temperature], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / temperature, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert metrics.fit_temperature(logits, labels) == pytest.approx(temperature.item(), abs=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e3, 1e8])
def test_the_temperature_scales_with_the_logits(scale):
    logits, labels = drawn(300, 5, 1.3)
    plain = metrics.fit_temperature(logits, labels)
    assert metrics.fit_temperature(logits * scale + 7 * scale, labels) == pytest.approx(plain * scale, rel=1e-6)


def test_saturated_logits_with_one_wrong_sample():
    """Two classes and a gap of g: the share of misses e gives T = g / log((1 - e) / e)."""
    logits = torch.tensor([[1000.0, 0.0]]).repeat(200, 1)
    labels = torch.zeros(200, dtype=torch.int64)
    labels[0] = 1
    assert metrics.fit_temperature(logits, labels) == pytest.approx(1000 / math.log(199), rel=1e-6)


def test_excluded_classes_do_not_matter():
    logits, labels = drawn(300, 5, 1.3)
    masked = torch.cat((logits, torch.full((300, 2), -math.inf)), 1)
    assert metrics.fit_temperature(masked, labels) == pytest.approx(metrics.fit_temperature(logits, labels), rel=1e-9)


def test_rows_are_summed_in_chunks(monkeypatch):
    logits, labels = drawn(300, 5, 1.3)
    whole = metrics.fit_temperature(logits, labels)
    monkeypatch.setattr("fastreg.metrics.temperature.ELEMENTS", 64)
    assert metrics.fit_temperature(logits, labels) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[2.0, 1.0], [0.0, 1.0]], [0, 1], "the best T is 0"),
        ([[3.0], [1.0]], [0, 0], "the best T is 0"),  # one class
        ([[1.0, 1.0], [1.0, 1.0]], [0, 1], "the best T is 0"),
        ([[2.0, 1.0], [0.0, 1.0]], [1, 0], "the best T is infinite"),
        ([[1.0, 0.0], [1.0, 0.0]], [0, 1], "the best T is infinite"),
        ([[math.nan, 1.0]], [1], "`logits` has NaN or inf"),
        ([[math.inf, 1.0]], [1], "`logits` has NaN or inf"),
        ([[0.0, -math.inf]], [1], "`logits` has -inf for a label"),
        ([[0.0, 1.0]], [2], "`labels` has values outside 0..1: `logits` has 2 classes"),
        ([0.0, 1.0], [0, 1], "`logits` has shape [2]"),
    ],
)
def test_logits_without_a_best_temperature_are_named(logits, labels, message):
    with pytest.raises(InputError) as error:
        metrics.fit_temperature(logits, labels)
    assert message in str(error.value)
