"""Scores from features against OpenOOD's formulas in numpy, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fastreg.errors import InputError
from fastreg.evaluation import feature_scores
from fastreg.evaluation.feature_scores import FEATURE_SCORES, FitData, head_of

N, D, K, B = 200, 12, 5, 17


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(0)
    labels = np.arange(N) % K
    centers = rng.normal(size=(K, D)) * 2
    features = np.maximum(centers[labels] + rng.normal(size=(N, D)), 0).astype(np.float32)
    weight, bias = rng.normal(size=(K, D)).astype(np.float32), rng.normal(size=K).astype(np.float32)
    return FitData(*(torch.from_numpy(x) for x in (features, labels, weight, bias)))


@pytest.fixture(scope="module")
def tested():
    return torch.from_numpy(np.random.default_rng(1).normal(size=(B, D)).astype(np.float32) * 2)


def logsumexp(z):
    top = z.max()
    return top + np.log(np.exp(z - top).sum())


def inverse_covariance(rows):
    return np.linalg.pinv(np.cov(rows.T, bias=True))


def expected(name: str, fit: FitData, tested: torch.Tensor) -> list[float]:
    features, labels, weight, bias = (x.numpy().astype(float) for x in fit[:4])
    labels = labels.astype(int)
    means = np.stack([features[labels == c].mean(0) for c in range(K)])
    within = inverse_covariance(features - means[labels])
    found = []
    for x in tested.numpy().astype(float):
        if name == "knn":
            units = features / np.linalg.norm(features, axis=1, keepdims=True)
            found.append(-np.sort(((units - x / np.linalg.norm(x)) ** 2).sum(1))[49])
        elif name in ("mahalanobis", "relative_mahalanobis"):
            own = max(-(x - m) @ within @ (x - m) for m in means)
            middle = features.mean(0)
            other = -(x - middle) @ inverse_covariance(features - middle) @ (x - middle)
            found.append(own - other if name == "relative_mahalanobis" else own)
        elif name == "react":
            found.append(logsumexp(weight @ np.minimum(x, np.percentile(features, 90)) + bias))
        elif name == "dice":
            contribution = features.mean(0) * weight
            found.append(logsumexp((weight * (contribution > np.percentile(contribution, 90))) @ x + bias))
        else:
            origin = -np.linalg.pinv(weight) @ bias
            values, vectors = np.linalg.eigh((features - origin).T @ (features - origin) / N)
            rest = vectors[:, np.argsort(-values)[D // 2 :]]
            scale = (features @ weight.T + bias).max(1).mean() / np.linalg.norm(
                (features - origin) @ rest, axis=1
            ).mean()
            found.append(logsumexp(weight @ x + bias) - scale * np.linalg.norm((x - origin) @ rest))
    return found


@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_openoods_formulas(name, fit, tested):
    score = FEATURE_SCORES[name](fit)
    found = score(tested)
    assert (found.dtype, found.shape) == (torch.float64, (B,))
    assert np.allclose(found.numpy(), expected(name, fit, tested), rtol=1e-8, atol=1e-8)
    assert torch.allclose(score(tested[3:4]), found[3:4], rtol=1e-10)
    assert score(tested[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["knn", "mahalanobis", "relative_mahalanobis"])
def test_training_features_score_higher_than_far_ones(name, fit):
    score = FEATURE_SCORES[name](fit)
    far = torch.full((4, D), -30.0) * torch.randn(4, D, generator=torch.Generator().manual_seed(0)).sign()
    assert score(fit.features).median() > score(far).max()


def test_duplicated_features_have_a_singular_covariance(fit, tested):
    doubled = fit._replace(features=fit.features.repeat(1, 2), weight=fit.weight.repeat(1, 2))
    for name in ("mahalanobis", "relative_mahalanobis"):
        found = FEATURE_SCORES[name](doubled)(tested.repeat(1, 2))
        assert torch.allclose(found, FEATURE_SCORES[name](fit)(tested), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda fit: feature_scores.knn(fit, 201), "`k` is 201: give 1 to 200"),
        (lambda fit: feature_scores.react(fit, 101), "`percentile` is 101: give 0 to 100"),
        (lambda fit: feature_scores.dice(fit, -1), "`percentile` is -1: give 0 to 100"),
        (lambda fit: feature_scores.vim(fit, 0), "`dim` is 0: give 1 or more"),
        (
            lambda fit: feature_scores.mahalanobis(fit._replace(labels=fit.labels.clamp_max(3))),
            "1 of 5 classes",
        ),
    ],
)
def test_wrong_input(fit, call, words):
    with pytest.raises(InputError, match=words):
        call(fit)


class Net(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.body, self.head, self.last = nn.Linear(12, 8), nn.Linear(8, 5), last

    def forward(self, x):
        return self.last(self.head(self.body(x.flatten(1)).relu()))


def test_the_head_is_the_layer_whose_output_is_returned():
    net = Net(nn.Identity())
    assert head_of(net, torch.rand(2, 3, 2, 2)) is net.head
    assert not net.head._forward_hooks
    with pytest.raises(InputError, match="ends in a linear layer"):
        head_of(Net(nn.Softmax(1)), torch.rand(2, 3, 2, 2))
