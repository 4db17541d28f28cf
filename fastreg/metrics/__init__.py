"""Metrics as pure functions of torch tensors or numpy arrays. Shares in [0, 1] in, percent out."""

from fastreg.metrics.calibration import (
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    reliability_bins,
    rms_calibration_error,
)
from fastreg.metrics.classification import (
    average_confidence,
    brier_score,
    negative_log_likelihood,
    top1_error,
    top5_error,
)
from fastreg.metrics.corruption import (
    category_corruption_errors,
    category_errors,
    corruption_errors,
    mean_corruption_error,
    mean_error,
    missing_corruptions,
    relative_mean_corruption_error,
)
from fastreg.metrics.detection import aupr, auroc, detection_error, fpr95
from fastreg.metrics.selective import aurc, risk_coverage
from fastreg.metrics.sequence_tally import SequenceTally
from fastreg.metrics.stability import flip_probability, flip_rates, mean_flip_rate, top5_distance
from fastreg.metrics.tally import Tally
from fastreg.metrics.temperature import fit_temperature
from fastreg.metrics.vector_scaling import fit_vector_scaling

__all__ = [
    "top1_error",
    "top5_error",
    "expected_calibration_error",
    "adaptive_calibration_error",
    "classwise_calibration_error",
    "maximum_calibration_error",
    "rms_calibration_error",
    "reliability_bins",
    "fit_temperature",
    "fit_vector_scaling",
    "brier_score",
    "negative_log_likelihood",
    "average_confidence",
    "corruption_errors",
    "mean_corruption_error",
    "relative_mean_corruption_error",
    "category_corruption_errors",
    "category_errors",
    "mean_error",
    "missing_corruptions",
    "detection_error",
    "auroc",
    "aupr",
    "fpr95",
    "risk_coverage",
    "aurc",
    "flip_probability",
    "flip_rates",
    "mean_flip_rate",
    "top5_distance",
    "SequenceTally",
    "Tally",
]
