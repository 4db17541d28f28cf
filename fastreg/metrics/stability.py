"""Stability of predictions over the frames of ImageNet-P's sequences."""

from __future__ import annotations

from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.metrics.inputs import matrix


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
    if reference not in ("previous", "first"):
        raise unknown("`reference`", reference, ("previous", "first"))
    if x.is_floating_point() and not bool((x == x.trunc()).all()):
        raise InputError("`predictions` has fractions or NaN: give whole numbers, the predicted classes.")
    if x.shape[1] < 2:
        raise InputError(f"`predictions` has {x.shape[1]} frame per sequence: give at least 2.")
    before = x[:, :-1] if reference == "previous" else x[:, :1]
    return 100.0 * float((x[:, 1:] != before).double().mean())
