"""Each metric against a plain version written from its definition, and against published figures."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import fastreg.report
from fastreg import metrics
from fastreg.errors import InputError
from fastreg.metrics import corruption

# torchvision's resnet50 IMAGENET1K_V1 on the published JPEGs: published top-1 accuracy in percent, mean of severities
RESNET50 = dict(
    zip(
        corruption.NAMES,
        (29.29, 27.03, 23.81, 38.75, 26.79, 38.67, 36.24, 32.53, 38.14, 45.83, 68.02, 39.06, 45.25, 44.79, 53.41),
    )
)


@pytest.fixture
def errors():
    return {name: [1 - accuracy / 100] * 5 for name, accuracy in RESNET50.items()}


def test_resnet50_reproduces_its_published_summary(errors):
    assert metrics.mean_corruption_error(errors) == pytest.approx(76.70, abs=0.005)
    assert metrics.relative_mean_corruption_error(errors, 1 - 0.7613) == pytest.approx(105.0, abs=0.06)
    assert metrics.mean_error(errors) == pytest.approx(100 - 39.17, abs=0.005)
    category = metrics.category_corruption_errors(errors)
    assert [round(category[c], 2) for c in ("noise", "blur", "weather", "digital")] == [81.31, 80.30, 68.86, 77.47]
    assert metrics.corruption_errors({"fog": errors["fog"]})["fog"] == pytest.approx(66.11, abs=0.006)


def test_the_mce_of_alexnet_is_one_hundred():
    assert metrics.mean_corruption_error(corruption.ALEXNET) == pytest.approx(100)
    relative = metrics.relative_mean_corruption_error(corruption.ALEXNET, corruption.ALEXNET_CLEAN)
    assert relative == pytest.approx(100)


def test_raw_categories_are_means_of_errors(errors):
    raw = metrics.category_errors(errors)
    assert raw["noise"] == pytest.approx(100 - (29.29 + 27.03 + 23.81) / 3)
    weighted = (3 * raw["noise"] + 4 * (raw["blur"] + raw["weather"] + raw["digital"])) / 15
    assert weighted == pytest.approx(metrics.mean_error(errors))


def test_table4_rows_recompute_their_own_columns():
    tables = json.loads((Path(fastreg.report.__file__).parent / "paper_tables.json").read_text())
    for row in tables["table4_imagenet"]:
        noise, rest = row["noise"], row["blur"] + row["weather"] + row["digital"]
        assert (3 * noise + 4 * rest) / 15 == pytest.approx(row["mce"], abs=0.0075)
        mean = (row["clean"] + row["fgsm"] + row["occlusion"] + noise + rest) / 7
        assert mean == pytest.approx(row["average"], abs=0.0075)


def test_a_partial_suite_has_no_total(errors):
    del errors["fog"], errors["snow"]
    for total in (metrics.mean_corruption_error, metrics.category_errors, metrics.mean_error):
        with pytest.raises(InputError, match="no snow, fog: evaluate all 15"):
            total(errors)
    assert metrics.missing_corruptions(errors) == ["snow", "fog"]


def test_extra_corruptions_do_not_move_the_mean(errors):
    plain = metrics.mean_corruption_error(errors)
    assert metrics.mean_corruption_error(errors | {"spatter": [1.0] * 5}) == plain


def plain_ece(confidence, correct, bins=20):
    """Straight from the definition, one bin at a time; edges in the confidences' precision."""
    edges = np.linspace(0, 1, bins + 1).astype(confidence.dtype)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = correct[inside].mean(dtype=np.float64) - confidence[inside].mean(dtype=np.float64)
            total += abs(gap) * inside.mean()
    return 100 * total


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [1, 7, 15, 20])
def test_ece_against_a_plain_version(dtype, bins):
    rng = np.random.default_rng(0)
    confidence = rng.beta(4, 1, 3000).astype(dtype)
    confidence[:200] = 1.0  # a saturated softmax
    confidence[200 : 201 + bins] = np.linspace(0, 1, bins + 1)  # every edge
    confidence[300:319] = np.arange(1, 20) / 20  # and decimals as they are typed
    correct = rng.random(3000) < confidence**2
    expected = plain_ece(confidence, correct.astype(dtype), bins)
    assert metrics.expected_calibration_error(confidence, correct, bins=bins) == pytest.approx(expected, abs=1e-9)
    assert metrics.expected_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct), bins) == (
        pytest.approx(expected, abs=1e-9)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [*range(1, 31), 100])
def test_an_edge_closes_its_bin(dtype, bins):
    edges = np.linspace(0, 1, bins + 1).astype(dtype)
    assert metrics.reliability_bins(edges[1:], np.ones(bins), bins)["count"] == [1] * bins
    above = np.nextafter(edges[:-1], dtype(2))
    assert metrics.reliability_bins(above, np.ones(bins), bins)["count"] == [1] * bins


def test_ece_by_hand():
    assert metrics.expected_calibration_error([1.0, 1.0], [1, 0]) == pytest.approx(50)
    assert metrics.expected_calibration_error([1.0] * 4, [True] * 4) == 0
    # 0.05 closes the first bin, 0.06 opens the second
    assert metrics.expected_calibration_error(np.array([0.05, 0.06]), [0, 0]) == pytest.approx(5.5)
    table = metrics.reliability_bins(np.array([0.05, 0.06, 1.0]), [0, 0, 1])
    assert table["count"][0] == 1
    assert table["count"][1] == 1
    assert table["count"][19] == 1
    assert table["accuracy"][19] == 1.0
    assert table["accuracy"][5] is None


def plain_detection(inside, outside):
    thresholds = [*inside, *outside, math.inf]
    return 100 * min(0.5 * (np.mean(np.asarray(inside) < d) + np.mean(np.asarray(outside) >= d)) for d in thresholds)


def test_detection_error_at_its_ends():
    assert metrics.detection_error([0.3] * 5, [0.3] * 9) == 50
    assert metrics.detection_error([0.8, 0.9], [0.1, 0.2]) == 0
    assert metrics.detection_error([0.1, 0.2], [0.8, 0.9]) == 50  # worse than useless is still one half
    assert metrics.detection_error([0.5, 0.9], [0.5, 0.1]) == 25


@pytest.mark.parametrize("grain", [3, 10, 10_000])
def test_detection_metrics_against_plain_versions(grain):
    rng = np.random.default_rng(grain)
    inside = np.round(rng.beta(5, 2, 137) * grain) / grain
    outside = np.round(rng.beta(3, 3, 211) * grain) / grain
    assert metrics.detection_error(inside, outside) == pytest.approx(plain_detection(inside, outside), abs=1e-9)
    pairs = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
    assert metrics.auroc(inside, outside) == pytest.approx(100 * pairs, abs=1e-9)
    fpr = min((outside >= d).mean() for d in inside if (inside >= d).mean() >= 0.95)
    assert metrics.fpr95(inside, outside) == pytest.approx(100 * fpr, abs=1e-9)
    for positive, (pos, neg) in {"in": (inside, outside), "out": (-outside, -inside)}.items():
        area, before = 0.0, 0.0
        for d in sorted({*pos, *neg}, reverse=True):
            hits, alarms = (pos >= d).sum(), (neg >= d).sum()
            area += (hits / len(pos) - before) * hits / (hits + alarms)
            before = hits / len(pos)
        assert metrics.aupr(inside, outside, positive) == pytest.approx(100 * area, abs=1e-9)


def test_scores_of_two_precisions_are_compared_as_they_are():
    """0.1 in float32 is greater than 0.1 in float64, so it is no tie."""
    single, double = torch.tensor([0.1]), torch.tensor([0.1], dtype=torch.float64)
    assert metrics.auroc(single, double) == 100
    assert metrics.auroc(double, single) == 0
    assert metrics.auroc(single, single) == 50


@pytest.mark.parametrize("n", [1, 19, 20, 21, 40, 1000])
def test_fpr95_keeps_at_least_95_percent_and_no_more_than_needed(n):
    inside = np.arange(1, n + 1)
    assert metrics.fpr95(inside, np.arange(n + 1)) == pytest.approx(100 * (n + 1 - (n // 20 + 1)) / (n + 1))


def test_the_positives_are_named():
    with pytest.raises(InputError, match="unknown positive"):
        metrics.aupr([0.1], [0.2], "inside")


def test_nan_scores_are_refused():
    with pytest.raises(InputError, match="1 NaN"):
        metrics.detection_error([0.1, math.nan], [0.2])


def test_likelihood_brier_and_top_errors():
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    y = np.array([0, 1])
    assert metrics.negative_log_likelihood(p, y) == pytest.approx(-(math.log(0.7) + math.log(0.3)) / 2)
    assert metrics.brier_score(p, y) == pytest.approx(100 * (0.14 + (0.09 + 0.49 + 0.16)) / 2)
    assert metrics.top1_error(p, y) == 50
    assert metrics.top1_error([0, 1], y) == 0
    assert metrics.top1_error(np.array([True, False, True, True])) == 25
    assert metrics.average_confidence([0.5, 1.0]) == 75
    ten = np.tile(np.arange(10.0), (10, 1))
    assert metrics.top5_error(ten, np.arange(10)) == 50
    with pytest.raises(InputError, match=r"0\.\.2"):
        metrics.top1_error(p, [0, 3])


def test_a_tie_goes_to_the_lower_index():
    assert metrics.top1_error(np.zeros((4, 4)), np.arange(4)) == 75


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_row_with_a_nan_is_a_miss(classes):
    """Wherever the NaN is: every comparison with it is false, and no counting of larger logits may make that a hit."""
    logits = torch.zeros(classes + 1, classes)
    logits[range(classes), range(classes)] = math.nan
    logits[:, 0] += 1
    for label in range(classes):
        labels = torch.full((classes + 1,), label)
        assert metrics.top1_error(logits, labels) == pytest.approx(100 * (classes + (label > 0)) / (classes + 1))
        assert metrics.top5_error(logits, labels) == pytest.approx(100 * (classes + (label > 4)) / (classes + 1))
        assert metrics.top1_error(logits.numpy().astype(np.float64), labels.numpy()) == metrics.top1_error(
            logits, labels
        )
        tally = metrics.Tally()
        tally.update(logits, labels)
        assert tally.result()["top5_error"] == pytest.approx(metrics.top5_error(logits, labels))


def test_the_tally_equals_the_plain_metrics_and_ignores_sharding():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(997, 13, generator=generator) * 4
    labels = torch.randint(0, 13, (997,), generator=generator)
    whole = metrics.Tally()
    confidence = whole.update(logits, labels)
    result = whole.result()
    p = logits.softmax(1)
    hit = logits.argmax(1) == labels
    torch.testing.assert_close(confidence, p.amax(1))
    assert result["n"] == 997
    assert result["error"] == pytest.approx(metrics.top1_error(logits, labels))
    assert result["top5_error"] == pytest.approx(metrics.top5_error(logits, labels))
    assert result["ece"] == pytest.approx(metrics.expected_calibration_error(confidence, hit))
    assert result["nll"] == pytest.approx(metrics.negative_log_likelihood(p, labels), rel=1e-5)
    assert result["brier"] == pytest.approx(metrics.brier_score(p, labels), rel=1e-5)
    assert result["confidence"] == pytest.approx(metrics.average_confidence(confidence))
    assert result["bins"] == metrics.reliability_bins(confidence, hit)
    chunked = metrics.Tally()
    for rows in torch.randperm(997, generator=generator).split(37):
        chunked.update(logits[rows], labels[rows])
    assert torch.equal(chunked.sums, whole.sums)  # exactly: likelihoods and Brier scores are on a grid
    assert torch.equal(chunked.bins, whole.bins)
    assert len({chunked.sums[i].item() for i in range(4, 7)}) == 3


def test_logits_without_a_softmax_are_counted_and_never_hits():
    logits = torch.tensor([[1.0, 0.0], [math.nan, 0.0], [math.inf, 0.0], [0.0, 1.0]])
    tally = metrics.Tally()
    tally.update(logits, torch.zeros(4, dtype=torch.int64))
    result = tally.result()
    assert result["nonfinite"] == 2
    assert result["error"] == 75
    assert result["confidence"] == pytest.approx(100 * torch.tensor([1.0, 0.0]).softmax(0)[0].item(), rel=1e-6)
    assert sum(result["bins"]["count"]) == 2
    assert math.isfinite(result["ece"])


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_logit_anywhere_invalidates_its_row(classes, bad):
    logits = torch.randn(classes + 2, classes, generator=torch.Generator().manual_seed(0))
    logits[range(classes), range(classes)] = bad
    logits[classes, 1:] = -math.inf  # a softmax of one class
    tally = metrics.Tally()
    confidence = tally.update(logits, torch.zeros(classes + 2, dtype=torch.int64))
    assert tally.result()["nonfinite"] == classes
    assert confidence[:classes].isnan().all()
    assert confidence[classes] == 1


def test_without_a_finite_row_there_is_no_calibration():
    tally = metrics.Tally()
    tally.update(torch.full((3, 5), math.nan), torch.zeros(3, dtype=torch.int64))
    result = tally.result()
    assert (result["n"], result["nonfinite"], result["error"]) == (3, 3, 100.0)
    assert [result[key] for key in ("confidence", "nll", "brier", "ece")] == [None] * 4


def test_a_masked_class_has_no_likelihood_and_everything_else():
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    logits[:, 4] = -math.inf
    labels = torch.arange(40) % 5
    tally = metrics.Tally()
    tally.update(logits, labels)
    result = tally.result()
    assert (result["impossible"], result["nonfinite"], result["nll"]) == (8, 0, None)
    assert result["brier"] == pytest.approx(metrics.brier_score(logits.softmax(1), labels), rel=1e-5)
    tally = metrics.Tally()
    tally.update(logits, labels % 4)
    assert tally.result()["impossible"] == 0
    assert tally.result()["nll"] == pytest.approx(metrics.negative_log_likelihood(logits.softmax(1), labels % 4))
