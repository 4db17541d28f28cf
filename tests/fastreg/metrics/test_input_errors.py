"""Arguments that do not fit: an InputError that names the argument or the corruption, and the allowed values."""

import math
import re

import numpy as np
import pytest
import torch

from fastreg import metrics
from fastreg.errors import InputError
from fastreg.metrics.corruption import NAMES

ERRORS = {name: [0.5] * 5 for name in NAMES}
TOTALS = (
    metrics.mean_corruption_error,
    metrics.mean_error,
    metrics.category_errors,
    metrics.category_corruption_errors,
    lambda errors: metrics.relative_mean_corruption_error(errors, 0.5),
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fog": [0.1] * 4}, "fog has 4 errors"),
        ({"fog": [0.1] * 6}, "fog has 6 errors"),
        ({"fog": [45.0] * 5}, "fog at severity 1 is 45: give a share in [0, 1]"),
        ({"fog": [math.nan] * 5}, "fog at severity 1 is nan: give a share in [0, 1]"),
        ({"fog": None}, "fog is NoneType"),
        ({"fog": 0.5}, "fog is float"),
        ({"fog": "abcde"}, "fog is str"),
        ({"fog": {1: 0.5}}, "fog is dict"),
        ({"fog": [None] * 5}, "fog at severity 1 is None"),
        ({"fog": ["a"] * 5}, "fog at severity 1 is 'a'"),
        ({"fog": np.zeros((5, 2))}, "fog at severity 1 is array"),
        ({"fogg": [0.1] * 5}, "unknown corruption 'fogg'"),
    ],
)
@pytest.mark.parametrize("total", TOTALS)
def test_bad_errors_are_named(total, change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        total(ERRORS | change)
    if "fogg" not in change:
        with pytest.raises(InputError, match=re.escape(message)):
            metrics.corruption_errors(change)


def test_errors_come_in_a_mapping_and_the_clean_error_is_a_share():
    with pytest.raises(InputError, match="`errors` is list: give a mapping"):
        metrics.mean_corruption_error(list(ERRORS.items()))
    with pytest.raises(InputError, match="`clean_error` is None"):
        metrics.relative_mean_corruption_error(ERRORS, None)
    with pytest.raises(InputError, match=r"divide percentages by 100"):
        metrics.relative_mean_corruption_error(ERRORS, 23.87)
    with pytest.raises(InputError, match="unknown corruption 'saturate'"):
        metrics.corruption_errors({"saturate": [0.1] * 5})  # AlexNet has none
    for values in (np.full(5, 0.5), torch.full((5,), 0.5), (0.5,) * 5):
        assert metrics.mean_error(ERRORS | {"fog": values, "saturate": [0.9] * 5}) == pytest.approx(50)


P = [[0.9, 0.1], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.top1_error(P), "`outputs` has shape [2, 2]: give one number per sample"),
        (lambda: metrics.top1_error([2, 1]), "`outputs` has the value 2, outside [0, 1]: without `labels` give hits"),
        (lambda: metrics.top1_error([math.nan, 1]), "`outputs` has the value nan, outside [0, 1]"),
        (lambda: metrics.top1_error(np.zeros((2, 3, 4)), [0, 1]), "`outputs` has shape [2, 3, 4]"),
        (lambda: metrics.top1_error(P, [0.0, 0.7]), "`labels` has fractions or NaN: give whole numbers"),
        (lambda: metrics.top1_error(P, np.eye(2)), "`labels` has shape [2, 2]"),
        (lambda: metrics.top1_error(P, [0]), "`outputs` has 2 rows and `labels` 1"),
        (lambda: metrics.top1_error(P, [0, 2]), "`labels` has values outside 0..1: `outputs` has 2 classes"),
        (lambda: metrics.top1_error([], []), "`outputs` is empty"),
        (lambda: metrics.top5_error([1, 2, 3], [1, 2, 4]), "`outputs` has shape [3]: give one number per sample and"),
        (lambda: metrics.average_confidence([7]), "`confidence` has the value 7, outside [0, 1]"),
        (lambda: metrics.average_confidence([math.nan]), "`confidence` has the value nan, outside [0, 1]"),
        (lambda: metrics.average_confidence(P), "`confidence` has shape [2, 2]"),
        (lambda: metrics.expected_calibration_error([0.5], [7]), "`correct` has the value 7, outside [0, 1]"),
        (lambda: metrics.expected_calibration_error([0.5], [math.nan]), "`correct` has the value nan, outside [0, 1]"),
        (lambda: metrics.expected_calibration_error([1.2], [1]), "`confidence` has the value 1.2, outside [0, 1]: "),
        (lambda: metrics.expected_calibration_error([0.2, 0.3], [1]), "`confidence` has 2 values and `correct` 1"),
        (lambda: metrics.expected_calibration_error(P, [1, 1]), "`confidence` has shape [2, 2]"),
        (lambda: metrics.expected_calibration_error(["a"], [1]), "`confidence` is list (can't convert"),
        (lambda: metrics.expected_calibration_error(None, [1]), "`confidence` is NoneType ("),
        (lambda: metrics.expected_calibration_error([0.5], [1], bins=0), "`bins` is 0"),
        (lambda: metrics.reliability_bins([0.5], [1], bins=-3), "`bins` is -3"),
        (lambda: metrics.expected_calibration_error([0.5], [1], bins=2.5), "`bins` is 2.5"),
        (lambda: metrics.adaptive_calibration_error([0.5, math.nan], [1, 1]), "`confidence` has the value nan"),
        (lambda: metrics.adaptive_calibration_error([0.5], [1, 1]), "`confidence` has 1 values and `correct` 2"),
        (lambda: metrics.adaptive_calibration_error([0.5], [1], bins=0), "`bins` is 0"),
        (lambda: metrics.maximum_calibration_error([1.5], [1]), "`confidence` has the value 1.5, outside [0, 1]"),
        (lambda: metrics.maximum_calibration_error([0.5], [1], bins=0), "`bins` is 0"),
        (lambda: metrics.rms_calibration_error([1.5], [1]), "`confidence` has the value 1.5, outside [0, 1]"),
        (lambda: metrics.rms_calibration_error([0.5], [1], bins=0), "`bins` is 0"),
        (lambda: metrics.classwise_calibration_error([[math.nan, 1.0]], [0]), "`probabilities` has values outside"),
        (lambda: metrics.classwise_calibration_error([[2.0, -1.0]], [0]), "`probabilities` has values outside [0, 1]"),
        (lambda: metrics.classwise_calibration_error(P, [0, 2]), "outside 0..1: `probabilities` has 2 classes"),
        (lambda: metrics.classwise_calibration_error(P, [0, 1], bins=0), "`bins` is 0"),
        (lambda: metrics.risk_coverage([math.nan], [1]), "`confidence` has the value nan"),
        (lambda: metrics.aurc([0.5], [2]), "`correct` has the value 2, outside [0, 1]"),
        (lambda: metrics.aurc([0.5, 0.5], [1]), "`confidence` has 2 values and `correct` 1"),
        (lambda: metrics.flip_probability([[1, 2]], "last"), "unknown `reference` 'last'"),
        (lambda: metrics.flip_probability([1, 2]), "`predictions` has shape [2]: give one predicted class per"),
        (lambda: metrics.flip_probability([[1], [2]]), "`predictions` has 1 frame per sequence"),
        (lambda: metrics.flip_probability([[1, math.nan]]), "`predictions` has fractions or NaN"),
        (lambda: metrics.brier_score([[5.0, 1.0]], [0]), "`probabilities` has values outside [0, 1]"),
        (lambda: metrics.brier_score([[0.5, 0.1]], [0]), "rows that do not sum to 1: give the softmax"),
        (lambda: metrics.brier_score([[math.nan, 1.0]], [0]), "`probabilities` has values outside [0, 1]"),
        (lambda: metrics.negative_log_likelihood([0.5, 0.5], [0, 1]), "`probabilities` has shape [2]: give"),
        (lambda: metrics.negative_log_likelihood([[3.0, -1.0]], [1]), "`probabilities` has values outside [0, 1]"),
        (lambda: metrics.detection_error([], [1.0]), "`scores_in` is empty"),
        (lambda: metrics.fpr95([0.5], [math.nan]), "`scores_out` has 1 NaN values"),
        (lambda: metrics.auroc(P, [1.0]), "`scores_in` has shape [2, 2]"),
        (lambda: metrics.auroc([0.5], torch.tensor([1j])), "`scores_out` is complex64: give an array of real numbers"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call()


def test_arguments_in_other_forms_are_accepted():
    assert metrics.top1_error(P, [[0], [1]]) == 0
    assert metrics.top1_error(1, 1) == 0
    assert metrics.top1_error(P, [0.0, 1.0]) == 0
    assert metrics.expected_calibration_error([[0.9], [0.9]], [True, True]) == pytest.approx(10)
    half = torch.tensor(P).bfloat16().repeat(1, 500) / 500  # sums to 1 as well as bfloat16 can
    assert metrics.negative_log_likelihood(half, [0, 1]) == pytest.approx(
        math.log(500) - math.log(0.9 * 0.8) / 2, rel=0.01
    )
    assert metrics.detection_error(0.9, 0.1) == 0
