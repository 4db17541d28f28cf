"""Flip probability against loops over sequences and frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg import metrics


def plain_flips(predictions: list[list[int]], reference: str) -> float:
    flips = pairs = 0
    for sequence in predictions:
        for j in range(1, len(sequence)):
            flips += sequence[j] != sequence[j - 1 if reference == "previous" else 0]
            pairs += 1
    return 100 * flips / pairs


@pytest.mark.parametrize("reference", ["previous", "first"])
@pytest.mark.parametrize(("videos", "frames", "classes"), [(1, 2, 2), (5, 31, 3), (40, 11, 1000), (7, 9, 1)])
def test_flips_are_counted_over_all_pairs(videos, frames, classes, reference):
    predictions = np.random.default_rng(frames).integers(0, classes, (videos, frames))
    expected = plain_flips(predictions.tolist(), reference)
    for given in (predictions, predictions.astype(np.float32), torch.from_numpy(predictions), predictions.tolist()):
        assert metrics.flip_probability(given, reference) == pytest.approx(expected, abs=1e-9)
    assert metrics.flip_probability(predictions) == pytest.approx(plain_flips(predictions.tolist(), "previous"))


def test_flips_by_hand():
    assert metrics.flip_probability([[1, 2, 1, 1]]) == pytest.approx(200 / 3)
    assert metrics.flip_probability([[1, 2, 1, 1]], reference="first") == pytest.approx(100 / 3)
