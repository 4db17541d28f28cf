"""Top-5 distances, flip rates and running counts against the published test code's output and published numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastreg import metrics
from fastreg.errors import InputError
from fastreg.metrics.stability import ALEXNET_FLIPS
from tests.golden.make_stability import CASES, logits
from tests.support import ROOT

PUBLISHED = json.loads((ROOT / "tests" / "golden" / "stability.json").read_text())
# Flip probabilities of ResNeXt-101 32x48d WSL on ImageNet-P, published by Orhan with arXiv 1907.07640
# (github.com/eminorhan/resnext-wsl, results/imagenet_p)
RESNEXT_WSL = {
    "gaussian_noise": 0.05846533,
    "shot_noise": 0.069914,
    "motion_blur": 0.02842467,
    "zoom_blur": 0.02323,
    "snow": 0.03666933,
    "brightness": 0.01535667,
    "translate": 0.0241605,
    "rotate": 0.034686,
    "tilt": 0.02148533,
    "scale": 0.04619467,
}


def tallied(x, reference, labels=None, batch=2):
    tally = metrics.SequenceTally(reference=reference)
    labels = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    for part, own in zip(x.split(batch), labels.split(batch)):
        tally.update(part, own)
    tally.merge()
    return tally.result()


@pytest.mark.parametrize("reference", ["previous", "first"])
@pytest.mark.parametrize("name", CASES)
def test_the_published_test_code(name, reference):
    x = torch.from_numpy(logits(name)).float()
    expected = PUBLISHED[f"{name}, {reference}"]
    assert metrics.flip_probability(x.argmax(2), reference) == pytest.approx(100 * expected["flips"], abs=1e-9)
    top = x.sort(dim=-1, descending=True, stable=True).indices[..., :5]
    assert metrics.top5_distance(top, reference) == pytest.approx(expected["top5"], abs=1e-9)
    for batch in (1, 2, 9):
        found = tallied(x, reference, batch=batch)
        assert found["flip_probability"] == pytest.approx(100 * expected["flips"], abs=1e-9)
        assert found["top5_distance"] == pytest.approx(expected["top5"], abs=1e-9)
        assert found["frames"] == x.shape[1]


def test_counts_of_ranks_add_up():
    x = torch.from_numpy(logits("ties")).float()
    labels = torch.zeros(len(x), dtype=torch.int64)
    tallies = [metrics.SequenceTally() for _ in range(3)]
    for tally, rows in zip(tallies, (slice(None), slice(0, 2), slice(2, None))):
        tally.update(x[rows], labels[rows])
    assert torch.equal(tallies[0].counts, tallies[1].counts + tallies[2].counts)


def test_distances_by_hand():
    assert metrics.top5_distance([[[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]]) == 0
    assert metrics.top5_distance([[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]]) == 5 + 4 + 3 + 2 + 1
    assert metrics.top5_distance([[[0, 1, 2, 3, 4], [1, 0, 2, 3, 9]]]) == 1 + 1 + 1  # class 4 falls from rank 5 to 6
    frames = [[[0, 1], [1, 0], [0, 1]]]
    assert metrics.top5_distance(frames) == 2
    assert metrics.top5_distance(frames, "first") == 1


def test_the_published_mean_flip_rate():
    """27.8 in Xie et al. 2020 (arXiv 1911.04252), table 5; AlexNet's own is 100."""
    assert round(metrics.mean_flip_rate(RESNEXT_WSL), 1) == 27.8
    assert metrics.mean_flip_rate(ALEXNET_FLIPS) == pytest.approx(100)
    assert metrics.flip_rates({"tilt": 0.0141, "scale": 0.0}) == {"tilt": pytest.approx(20), "scale": 0.0}
    assert metrics.flip_rates({"mine": 3.0}, reference={"mine": 4.0}) == {"mine": 75.0}
    assert metrics.mean_flip_rate({**RESNEXT_WSL, "shear": 1.0}) == metrics.mean_flip_rate(RESNEXT_WSL)


def test_one_class_never_flips():
    assert tallied(torch.zeros(3, 4, 1), "previous") == {
        "frames": 4, "flip_probability": 0, "top5_distance": 0, "error": 0, "nonfinite": 0, "nonfinite_frames": 0,
    }  # fmt: skip


def test_saturated_logits_are_ties():
    """Equal logits, -inf among them, are ranked in the order of the classes: nothing flips."""
    x = torch.full((2, 5, 8), -torch.inf)
    x[..., 3] = 60000.0
    x[..., 6] = 60000.0
    found = tallied(x, "previous", torch.tensor([3, 6]))
    assert (found["flip_probability"], found["top5_distance"], found["error"]) == (0, 0, 50)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_frames_without_a_prediction_flip(value):
    x = torch.zeros(4, 5, 10)
    x[:, :, 2] = 1
    x[1, 2, 7] = value
    found = tallied(x, "previous", torch.full((4,), 2))
    assert found["flip_probability"] == 100 * 2 / 16  # to the frame and from it
    assert found["top5_distance"] == 15 * 2 / 16
    assert found["error"] == 100 / 20
    assert (found["nonfinite"], found["nonfinite_frames"]) == (1, 1)
    assert tallied(x, "first", torch.full((4,), 2))["flip_probability"] == 100 / 16
    lost = tallied(torch.full((2, 3, 4), value), "previous")
    assert (lost["flip_probability"], lost["error"], lost["nonfinite"], lost["nonfinite_frames"]) == (100, 100, 2, 6)
    assert tallied(x[:0], "first")["flip_probability"] == 0


def test_half_precision_counts_as_its_float32_copy():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 8, 20))).half()
    assert tallied(x, "first") == tallied(x.float(), "first")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.top5_distance([[1, 2]]), r"shape \[1, 2\]"),
        (lambda: metrics.top5_distance(np.zeros((1, 2, 6))), r"shape \[1, 2, 6\]"),
        (lambda: metrics.top5_distance([[[0, 0], [1, 0]]]), "a class twice"),
        (lambda: metrics.top5_distance([[[0.5, 0], [1, 0]]]), "fractions"),
        (lambda: metrics.top5_distance([[[0, 1]]]), "1 frame"),
        (lambda: metrics.top5_distance([[[0, 1], [1, 0]]], "last"), "`reference`"),
        (lambda: metrics.flip_rates({"fog": 0.1}), "fog"),
        (lambda: metrics.flip_rates({"tilt": -0.1}), "tilt is -0.1"),
        (lambda: metrics.flip_rates({"a": 1.0}, {"a": 0.0}), "a is 0: give a finite number"),
        (lambda: metrics.mean_flip_rate({"tilt": 0.1}), "no gaussian_noise, shot_noise"),
        (lambda: metrics.mean_flip_rate({**RESNEXT_WSL, "tilt": float("nan")}), "tilt is nan"),
    ],
)
def test_wrong_values(call, words):
    with pytest.raises(InputError, match=words):
        call()
