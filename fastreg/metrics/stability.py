"""Stability of predictions over the frames of ImageNet-P's sequences.

    FP   share of pairs of frames with different predictions
    FR   FP over AlexNet's                    mFR  the mean FR of the ten perturbations
    T5D  mean distance between the rankings of the five most probable classes

A pair is a frame and the one before, or, in sequences of noise, the first.

Source: Hendrycks and Dietterich, Benchmarking neural network robustness to common corruptions and perturbations (ICLR
2019), section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastreg.errors import InputError, unknown
from fastreg.metrics.inputs import matrix, tensor

TOP = 5
# AlexNet's flip probabilities on ImageNet-P's files, to two decimals of a percent. With these the probabilities that
# Orhan published for ResNeXt-101 32x48d WSL give the published mFR of 27.8 (Xie et al. 2020, arXiv 1911.04252).
ALEXNET_FLIPS = {
    "gaussian_noise": 0.2365,
    "shot_noise": 0.3006,
    "motion_blur": 0.0930,
    "zoom_blur": 0.0594,
    "snow": 0.1193,
    "brightness": 0.0489,
    "translate": 0.1101,
    "rotate": 0.1310,
    "tilt": 0.0705,
    "scale": 0.2353,
}


def flip_probability(predictions: Any, reference: str = "previous") -> float:
    """Share of pairs of frames with different predictions, over V (F - 1) pairs.

    Args:
        predictions: Predicted classes, integers [V, F]: V sequences of F frames, F 2 or more.
        reference: The frame that frames 2 to F are compared with: ``"previous"``, the one before, or ``"first"``, for
            sequences of noise, whose frames do not follow from one another.

    Returns:
        Percent.

    Raises:
        InputError: ``predictions`` is not [V, F], has fractions or NaN or fewer than 2 frames, or ``reference`` is
            another value.

    Source:
        Hendrycks and Dietterich, Benchmarking neural network robustness to common corruptions and perturbations
        (ICLR 2019), section 4.2.
    """
    x = matrix(predictions, "predictions", "one predicted class per sequence and frame, [V, F]")
    _check(reference, x, "predictions")
    before, after = pairs(x, reference)
    return 100.0 * float((after != before).double().mean())


def top5_distance(rankings: Any, reference: str = "previous") -> float:
    """Mean distance between the five most probable classes of two frames, over V (F - 1) pairs.

    The distance of a pair is the sum over the first frame's classes, at rank i = 1 to 5, of |i - r|, where r is the
    rank of the class in the second frame, at most 6. It is 0 for equal rankings, and 15 for disjoint ones.

    Args:
        rankings: The most probable classes of each frame, integers [V, F, k], best first; k is 5, or the number of
            classes if it is smaller. Ties are in the order of the classes.
        reference: The frame that frames 2 to F are compared with: ``"previous"`` or ``"first"``, as for
            ``flip_probability``.

    Returns:
        The distance, from 0 to 15. It is not a percentage.

    Raises:
        InputError: ``rankings`` is not [V, F, k] with k from 1 to 5, has fractions, NaN, a class twice in a frame or
            fewer than 2 frames, or ``reference`` is another value.

    Source:
        Hendrycks and Dietterich (ICLR 2019), section 4.2, and the published test code.
    """
    x = tensor(rankings, "rankings")
    if x.ndim != 3 or not 1 <= x.shape[2] <= TOP:
        raise InputError(
            f"`rankings` has shape {list(x.shape)}: give the {TOP} most probable classes per sequence and frame, "
            f"[V, F, {TOP}]."
        )
    _check(reference, x, "rankings")
    repeated = x.sort(-1).values.diff(dim=-1) == 0
    if bool(repeated.any()):
        raise InputError("`rankings` has a class twice in a frame: give each frame's classes, best first.")
    return float(pair_distances(x, reference).double().mean())


def pair_distances(rankings: Tensor, reference: str) -> Tensor:
    """int64 [V, F - 1]: the top-5 distance of every pair of frames of integers [V, F, k]."""
    before, after = pairs(rankings, reference)
    k = rankings.shape[2]
    rank = torch.arange(k, device=rankings.device)
    same = before[..., :, None] == after[..., None, :]
    found = (same * rank).sum(-1) + (~same.any(-1)) * TOP
    return (found - rank).abs().sum(-1)


def pairs(frames: Tensor, reference: str) -> tuple[Tensor, Tensor]:
    """The first and the second frames of all pairs of [V, F, ...]."""
    before = frames[:, :-1] if reference == "previous" else frames[:, :1].expand_as(frames[:, 1:])
    return before, frames[:, 1:]


def flip_rates(flips: Mapping[str, float], reference: Mapping[str, float] | None = None) -> dict[str, float]:
    """FR: the flip probability of each perturbation over AlexNet's.

    Args:
        flips: Perturbation name to its flip probability in [0, 1].
        reference: The same of the network that rates are relative to. None: AlexNet's on ImageNet-P's files,
            ``ALEXNET_FLIPS``. Top-5 distances of both give the top-5 distance rate.

    Returns:
        Perturbation name to its rate in percent.

    Raises:
        InputError: A perturbation has no reference, or a value is negative or not finite.

    Source:
        Hendrycks and Dietterich (ICLR 2019), section 4.2.
    """
    known = ALEXNET_FLIPS if reference is None else reference
    for name in flips:
        if name not in known:
            raise unknown("perturbation", str(name), [*known])
    return {
        name: 100.0 * _amount(name, value) / _amount(name, known[name], least=1e-12) for name, value in flips.items()
    }


def mean_flip_rate(flips: Mapping[str, float]) -> float:
    """mFR: the mean flip rate of the ten perturbations.

    Args:
        flips: Perturbation name to its flip probability in [0, 1]. All ten are required; the extra perturbations are
            allowed and ignored.

    Returns:
        Percent.

    Raises:
        InputError: A perturbation is missing, or its value is negative or not finite.

    Source:
        Hendrycks and Dietterich (ICLR 2019), section 4.2.
    """
    missing = [name for name in ALEXNET_FLIPS if name not in flips]
    if missing:
        raise InputError(f"`flips` has no {', '.join(missing)}: evaluate all ten perturbations first.")
    rates = flip_rates({name: flips[name] for name in ALEXNET_FLIPS})
    return sum(rates.values()) / len(rates)


def _amount(name: str, value: Any, least: float = 0.0) -> float:
    number = float(value)
    if not least <= number < float("inf"):
        raise InputError(f"{name} is {number:g}: give a finite number of 0 or more (above 0 for the reference).")
    return number


def _check(reference: str, x: Tensor, name: str) -> None:
    if reference not in ("previous", "first"):
        raise unknown("`reference`", reference, ("previous", "first"))
    if x.is_floating_point() and not bool((x == x.trunc()).all()):
        raise InputError(f"`{name}` has fractions or NaN: give whole numbers, the predicted classes.")
    if x.shape[1] < 2:
        raise InputError(f"`{name}` has {x.shape[1]} frame per sequence: give at least 2.")
