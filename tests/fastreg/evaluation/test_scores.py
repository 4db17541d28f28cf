"""OOD scores against plain float64 versions, and their limits."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import entropy as plain_entropy

from fastreg.errors import InputError
from fastreg.evaluation import scores
from fastreg.metrics import Tally, auroc

ALL = (scores.max_softmax, scores.max_logit, scores.energy, scores.entropy)
PLAIN = {
    scores.max_softmax: lambda z: softmax(z, 1).max(1),
    scores.max_logit: lambda z: z.max(1),
    scores.energy: lambda z: logsumexp(z, 1),
    scores.entropy: lambda z: -plain_entropy(softmax(z, 1), axis=1),
}
# float32: the largest relative error of a sum of 1000 exponentials in these tests is below 1e-5
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("classes", "scale"), [(1, 1.0), (2, 3.0), (10, 1.0), (1000, 4.0), (10, 300.0)])
@pytest.mark.parametrize("score", ALL)
def test_a_score_is_its_formula(score, classes, scale, dtype):
    z = (torch.randn(50, classes, generator=torch.Generator().manual_seed(classes)) * scale).to(dtype)
    found = score(z)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = PLAIN[score](z.double().numpy())
    np.testing.assert_allclose(found.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0, 1000.0])
def test_energy_at_a_temperature(temperature):
    z = torch.randn(50, 10, dtype=torch.float64) * 3
    expected = temperature * logsumexp(z.numpy() / temperature, 1)
    np.testing.assert_allclose(scores.energy(z, temperature), expected, rtol=1e-12)
    np.testing.assert_allclose(scores.energy(z, temperature=temperature), expected, rtol=1e-12)


def test_the_softmax_score_is_the_confidence_of_an_evaluation_to_the_bit():
    z = torch.randn(300, 100, generator=torch.Generator().manual_seed(0)) * 5
    assert torch.equal(scores.max_softmax(z), Tally().update(z, torch.zeros(300, dtype=torch.int64)))


def test_scores_are_higher_for_sure_rows():
    generator = torch.Generator().manual_seed(0)
    unsure = torch.randn(200, 10, generator=generator) * 0.1
    sure = unsure.clone()
    sure[:, 3] += 9
    for score in ALL:
        assert auroc(score(sure), score(unsure)) == 100


def test_saturated_excluded_and_missing_logits():
    z = torch.tensor([[1e4, 0.0, -1e4], [0.0, -math.inf, -math.inf], [math.nan, 1.0, 2.0], [5.0, 5.0, 5.0]])
    expected = {
        scores.max_softmax: [1.0, 1.0, math.nan, 1 / 3],
        scores.max_logit: [1e4, 0.0, math.nan, 5.0],
        scores.energy: [1e4, 0.0, math.nan, 5 + math.log(3)],
        scores.entropy: [0.0, 0.0, math.nan, -math.log(3)],
    }
    for score, values in expected.items():
        torch.testing.assert_close(score(z), torch.tensor(values), equal_nan=True)


@pytest.mark.parametrize("score", [scores.max_softmax, scores.max_logit, scores.energy, scores.entropy])
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(3), "`logits` is torch.float32 [3]: give a float tensor [B, K]"),
        (torch.zeros(3, 0), "`logits` is torch.float32 [3, 0]"),
        (torch.zeros(3, 2, dtype=torch.int64), "`logits` is torch.int64 [3, 2]"),
        (np.zeros((3, 2)), "`logits` is ndarray"),
    ],
)
def test_what_is_not_logits_is_named(score, logits, message):
    with pytest.raises(InputError, match=re.escape(message)):
        score(logits)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_is_greater_than_0(temperature):
    with pytest.raises(InputError, match="`temperature` is"):
        scores.energy(torch.zeros(2, 3), temperature)


def test_an_empty_batch_has_no_scores():
    assert all(score(torch.zeros(0, 4)).shape == (0,) for score in ALL)
