"""The risk-coverage curve and its area against loops over the ranked samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg import metrics


def plain_curve(confidence, correct) -> tuple[list[float], list[float]]:
    ranked = sorted(zip(confidence, correct), key=lambda pair: -pair[0])  # stable
    coverage, risk, errors = [], [], 0
    for kept, (_, hit) in enumerate(ranked, 1):
        errors += not hit
        coverage.append(100 * kept / len(ranked))
        risk.append(100 * errors / kept)
    return coverage, risk


@pytest.mark.parametrize("grain", [1, 3, 100, 1_000_000])
@pytest.mark.parametrize("count", [1, 2, 137])
def test_the_curve_and_its_area(count, grain):
    """Coarse grains give many equal confidences, 0 and 1 among them."""
    rng = np.random.default_rng(count)
    confidence = np.round(rng.random(count) * grain) / grain
    correct = rng.random(count) < confidence
    coverage, risk = metrics.risk_coverage(confidence, correct)
    expected = plain_curve(confidence, correct)
    assert (coverage.dtype, risk.dtype, coverage.shape, risk.shape) == (
        torch.float64,
        torch.float64,
        (count,),
        (count,),
    )
    np.testing.assert_allclose(coverage, expected[0], rtol=1e-12)
    np.testing.assert_allclose(risk, expected[1], rtol=1e-12, atol=1e-12)
    assert metrics.aurc(confidence, correct) == pytest.approx(np.mean(expected[1]), abs=1e-9)
    assert float(risk[-1]) == pytest.approx(metrics.top1_error(correct))
    tensors = torch.from_numpy(confidence).float(), torch.from_numpy(correct)
    ordered = plain_curve(tensors[0].tolist(), correct)
    assert metrics.aurc(*tensors) == pytest.approx(np.mean(ordered[1]), abs=1e-9)


def test_area_by_hand():
    assert metrics.aurc([0.9, 0.8, 0.7], [1, 1, 0]) == pytest.approx(100 / 9)
    assert metrics.aurc([0.7, 0.8, 0.9], [1, 1, 0]) == pytest.approx(100 * (1 + 1 / 2 + 1 / 3) / 3)
    assert metrics.aurc([0.5, 0.5], [1, 0]) == pytest.approx(25)  # equal confidences keep their order
    assert metrics.aurc([0.5, 0.5], [0, 1]) == pytest.approx(75)
    assert metrics.aurc([1.0] * 5, [True] * 5) == 0
