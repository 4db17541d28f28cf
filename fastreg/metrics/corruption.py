"""Corruption errors of ImageNet-C, divided by AlexNet's.

    CE_c = sum_s E_(s,c) / sum_s E^AlexNet_(s,c)          over the five severities s
    mCE  = mean of CE_c over the 15 corruptions c

E are top-1 errors. The noise, blur, weather and digital columns of the paper's table 4 are CE averaged over the
corruptions of a category; those of its table 2 are raw errors. AlexNet's errors are those published with the benchmark
(torchvision's AlexNet on the distributed JPEG files).

Source: Hendrycks and Dietterich, Benchmarking neural network robustness to common corruptions and perturbations
(ICLR 2019), section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastreg.errors import InputError, unknown

ALEXNET_CLEAN = 0.4348
ALEXNET = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}
NAMES = tuple(ALEXNET)
CATEGORIES = {"noise": NAMES[0:3], "blur": NAMES[3:7], "weather": NAMES[7:11], "digital": NAMES[11:15]}

Errors = Mapping[str, Sequence[float]]


def missing_corruptions(errors: Iterable[str]) -> list[str]:
    """The corruptions of the suite that ``errors`` lacks. No total is computed without them.

    Args:
        errors: Names of corruptions, such as the keys of a mapping of errors.

    Returns:
        Missing names in the order of the suite.
    """
    present = set(errors)
    return [name for name in NAMES if name not in present]


def corruption_errors(errors: Errors) -> dict[str, float]:
    """CE of each corruption: the sum of its five errors over the sum of AlexNet's.

    Args:
        errors: Corruption name to its five top-1 errors in [0, 1], one per severity.

    Returns:
        Corruption name to CE in percent.

    Raises:
        InputError: A corruption is unknown, or its value is not five errors in [0, 1].

    Source:
        Hendrycks and Dietterich (ICLR 2019), section 4.2.
    """
    return {name: 100.0 * sum(five) / sum(ALEXNET[name]) for name, five in _checked(errors).items()}


def mean_corruption_error(errors: Errors) -> float:
    """mCE: the mean CE of the 15 corruptions.

    Args:
        errors: Corruption name to its five top-1 errors in [0, 1], one per severity. All 15 are required;
            the four extra corruptions are allowed and ignored.

    Returns:
        Percent.

    Raises:
        InputError: A corruption is unknown or missing, or its value is not five errors in [0, 1].

    Source:
        Hendrycks and Dietterich (ICLR 2019), section 4.2.
    """
    return _mean(corruption_errors(_complete(errors)).values())


def relative_mean_corruption_error(errors: Errors, clean_error: float) -> float:
    """Relative mCE: as mCE, with five times the clean error subtracted from the model's and from AlexNet's sums.

    Args:
        errors: Corruption name to its five top-1 errors in [0, 1], one per severity. All 15 are required;
            the four extra corruptions are allowed and ignored.
        clean_error: Top-1 error of the model on clean images, in [0, 1].

    Returns:
        Percent.

    Raises:
        InputError: A corruption is unknown or missing, or its value is not five errors in [0, 1];
            or ``clean_error`` is outside [0, 1].

    Source:
        Hendrycks and Dietterich (ICLR 2019), section 4.2.
    """
    clean = _unit("`clean_error`", clean_error)
    return _mean(
        100.0 * (sum(five) - 5 * clean) / (sum(ALEXNET[name]) - 5 * ALEXNET_CLEAN)
        for name, five in _complete(errors).items()
    )


def category_corruption_errors(errors: Errors) -> dict[str, float]:
    """Mean CE of the corruptions of each category.

    Args:
        errors: Corruption name to its five top-1 errors in [0, 1], one per severity. All 15 are required;
            the four extra corruptions are allowed and ignored.

    Returns:
        Percent by category: ``noise``, ``blur``, ``weather``, ``digital``.

    Raises:
        InputError: A corruption is unknown or missing, or its value is not five errors in [0, 1].

    Source:
        Chun et al. 2020 (arXiv 2003.03879), table 4.
    """
    ce = corruption_errors(_complete(errors))
    return {category: _mean(ce[name] for name in names) for category, names in CATEGORIES.items()}


def category_errors(errors: Errors) -> dict[str, float]:
    """Mean raw top-1 error of the corruptions of each category.

    Args:
        errors: Corruption name to its five top-1 errors in [0, 1], one per severity. All 15 are required;
            the four extra corruptions are allowed and ignored.

    Returns:
        Percent by category: ``noise``, ``blur``, ``weather``, ``digital``.

    Raises:
        InputError: A corruption is unknown or missing, or its value is not five errors in [0, 1].

    Source:
        Chun et al. 2020 (arXiv 2003.03879), table 2.
    """
    raw = _complete(errors)
    return {category: _mean(100.0 * _mean(raw[n]) for n in names) for category, names in CATEGORIES.items()}


def mean_error(errors: Errors) -> float:
    """Mean raw top-1 error over the 75 conditions: the figure of CIFAR-C, and of ImageNet-C on other data.

    Args:
        errors: Corruption name to its five top-1 errors in [0, 1], one per severity. All 15 are required;
            the four extra corruptions are allowed and ignored.

    Returns:
        Percent.

    Raises:
        InputError: A corruption is unknown or missing, or its value is not five errors in [0, 1].

    Source:
        Chun et al. 2020 (arXiv 2003.03879), table 2.
    """
    return _mean(100.0 * _mean(five) for five in _complete(errors).values())


def _complete(errors: Errors) -> dict[str, list[float]]:
    _named(errors)
    missing = missing_corruptions(errors)
    if missing:
        raise InputError(f"`errors` has no {', '.join(missing)}: evaluate all 15 corruptions first.")
    return _checked({name: errors[name] for name in NAMES})


def _named(errors: Errors) -> None:
    """Raise InputError for a name that is neither one of the 15 nor one of the four extra corruptions."""
    from fastreg.kernels import EXTRA_CORRUPTIONS

    if not isinstance(errors, Mapping):
        raise InputError(f"`errors` is {type(errors).__name__}: give a mapping from corruptions to five errors each.")
    for name in errors:
        if name not in ALEXNET and name not in EXTRA_CORRUPTIONS:
            raise unknown("corruption", str(name), [*NAMES, *EXTRA_CORRUPTIONS])


def _checked(errors: Errors) -> dict[str, list[float]]:
    _named(errors)
    checked = {}
    for name, five in errors.items():
        if name not in ALEXNET:
            raise unknown("corruption", name, NAMES)
        if isinstance(five, str | Mapping) or not isinstance(five, Iterable):
            raise InputError(f"{name} is {type(five).__name__}: give a list of five errors, one per severity.")
        listed = list(five)
        if len(listed) != 5:
            raise InputError(f"{name} has {len(listed)} errors: give five, one per severity.")
        checked[name] = [_unit(f"{name} at severity {s}", error) for s, error in enumerate(listed, 1)]
    return checked


def _unit(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {value!r}: give a number in [0, 1].") from None
    if not 0 <= number <= 1:
        raise InputError(f"{name} is {number:g}: give a share in [0, 1]; divide percentages by 100.")
    return number


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
