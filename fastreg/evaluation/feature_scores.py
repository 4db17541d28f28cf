"""Scores for out-of-distribution detection from features: higher is more in-distribution.

Each function fits to features of training images and returns a function from features to scores. Parameters are the
defaults of OpenOOD 1.5, whose code the formulas follow. All arithmetic is in float64, on the features' device.

Memory beside the features [N, D]: ``knn`` keeps them in float64 (8 N D bytes), the other functions keep a few matrices
[D, D] and [K, D]. Sums over the features run in chunks of ``_ROWS``; ``react`` sorts a copy of them once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastreg.errors import InputError

__all__ = ["FEATURE_SCORES", "FitData", "dice", "head_of", "knn", "mahalanobis", "react", "relative_mahalanobis", "vim"]

Score = Callable[[Tensor], Tensor]  # float [B, D] to float64 [B]
_CHUNK = 2**24  # distances that are in memory at once
_ROWS = 4096  # features that are in memory in float64 at once


class FitData(NamedTuple):
    """Features of training images, and the linear layer that makes logits of them.

    Args:
        features: float [N, D].
        labels: int64 [N], in [0, K).
        weight: float [K, D].
        bias: float [K].
        classes: number of classes of the labels, if the layer has more outputs; None: K.
    """

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor
    classes: int | None = None


def knn(fit: FitData, k: int = 50) -> Score:
    """The negative squared distance to the k-th nearest training feature, all features scaled to length 1.

    Args:
        fit: features of training images.
        k: 1 to N.

    Returns:
        Function from features float [B, D] to scores float64 [B].

    Raises:
        InputError: ``k`` is not from 1 to the number of features.

    Source:
        Sun et al., Out-of-distribution detection with deep nearest neighbors (ICML 2022); OpenOOD 1.5.
    """
    if not 1 <= k <= len(fit.features):
        raise InputError(f"`k` is {k}: give 1 to {len(fit.features)}, the number of training features.")
    known = _unit(fit.features)

    def score(features: Tensor) -> Tensor:
        found = []
        for chunk in _unit(features).split(max(1, _CHUNK // len(known))):
            distances = (2 - 2 * chunk @ known.T).clamp_min(0)
            found.append(-distances.kthvalue(k, dim=1).values)
        return torch.cat(found) if found else features.new_zeros(0, dtype=torch.float64)

    return score


def mahalanobis(fit: FitData) -> Score:
    """The negative Mahalanobis distance to the nearest class mean, under the covariance of features within classes.

    Args:
        fit: features of training images, of every class at least one.

    Returns:
        Function from features float [B, D] to scores float64 [B].

    Raises:
        InputError: a class has no features.

    Source:
        Lee et al., A simple unified framework for detecting out-of-distribution samples and adversarial attacks
        (NeurIPS 2018); OpenOOD 1.5.
    """
    means, precision = _classes(fit)
    return lambda features: _nearest(features.double(), means, precision)


def relative_mahalanobis(fit: FitData) -> Score:
    """``mahalanobis`` less the same distance to the mean of all features under the covariance of all.

    Args:
        fit: features of training images, of every class at least one.

    Returns:
        Function from features float [B, D] to scores float64 [B].

    Raises:
        InputError: a class has no features.

    Source:
        Ren et al., A simple fix to Mahalanobis distance for improving near-OOD detection (2021); OpenOOD 1.5.
    """
    means, precision = _classes(fit)
    middle = fit.features.mean(0, keepdim=True, dtype=torch.float64)
    background = _inverse_covariance(fit.features, torch.zeros_like(fit.labels), middle)

    def score(features: Tensor) -> Tensor:
        x = features.double()
        return _nearest(x, means, precision) - _nearest(x, middle, background)

    return score


def react(fit: FitData, percentile: float = 90) -> Score:
    """The energy of the logits of features clipped at a percentile of all training activations.

    Args:
        fit: features of training images.
        percentile: 0 to 100.

    Returns:
        Function from features float [B, D] to scores float64 [B].

    Raises:
        InputError: ``percentile`` is out of range.

    Source:
        Sun et al., ReAct: out-of-distribution detection with rectified activations (NeurIPS 2021); OpenOOD 1.5.
    """
    top = _percentile(fit.features, percentile)
    weight, bias = fit.weight.double(), fit.bias.double()
    return lambda features: (features.double().clamp_max(top) @ weight.T + bias).logsumexp(1)


def dice(fit: FitData, percentile: float = 90) -> Score:
    """The energy of logits from the weights whose mean contribution is above a percentile; the others are 0.

    Args:
        fit: features of training images.
        percentile: 0 to 100.

    Returns:
        Function from features float [B, D] to scores float64 [B].

    Raises:
        InputError: ``percentile`` is out of range.

    Source:
        Sun and Li, DICE: leveraging sparsification for out-of-distribution detection (ECCV 2022); OpenOOD 1.5.
    """
    weight, bias = fit.weight.double(), fit.bias.double()
    contribution = fit.features.mean(0, dtype=torch.float64) * weight
    kept = torch.where(contribution > _percentile(contribution, percentile), weight, 0.0)
    return lambda features: (features.double() @ kept.T + bias).logsumexp(1)


def vim(fit: FitData, dim: int = 256) -> Score:
    """The energy less the scaled length of the features' part outside the principal subspace.

    Args:
        fit: features of training images.
        dim: dimension of the principal subspace; half the features' dimension if that is not larger than ``dim``.

    Returns:
        Function from features float [B, D] to scores float64 [B].

    Raises:
        InputError: ``dim`` is below 1, or the features have no part outside the principal subspace.

    Source:
        Wang et al., ViM: out-of-distribution with virtual-logit matching (CVPR 2022); OpenOOD 1.5.
    """
    if dim < 1:
        raise InputError(f"`dim` is {dim}: give 1 or more.")
    weight, bias, width = fit.weight.double(), fit.bias.double(), fit.features.shape[1]
    dim = dim if dim < width else max(1, width // 2)
    origin = -torch.linalg.pinv(weight) @ bias
    second = _scatter(fit.features, torch.zeros_like(fit.labels), origin[None]) / len(fit.features)
    _, vectors = torch.linalg.eigh(second)  # ascending
    rest = vectors[:, : width - dim]

    def residual(features: Tensor) -> Tensor:
        return ((features - origin) @ rest).norm(dim=1)

    logits = lengths = torch.zeros((), dtype=torch.float64, device=origin.device)
    for chunk in fit.features.split(_ROWS):
        known = chunk.double()
        logits = logits + (known @ weight.T + bias).amax(1).sum()
        lengths = lengths + residual(known).sum()
    if not lengths > 0:
        raise InputError(f"the training features lie in a space of {dim} dimensions: give a smaller `dim`.")
    scale = logits / lengths

    def score(features: Tensor) -> Tensor:
        x = features.double()
        return (x @ weight.T + bias).logsumexp(1) - scale * residual(x)

    return score


FEATURE_SCORES: dict[str, Callable[[FitData], Score]] = {
    "knn": knn,
    "mahalanobis": mahalanobis,
    "relative_mahalanobis": relative_mahalanobis,
    "react": react,
    "dice": dice,
    "vim": vim,
}


def head_of(model: nn.Module, pixels: Tensor) -> nn.Linear:
    """The linear layer whose output is the model's output: its input are the features.

    Args:
        model: from ``pixels`` to logits [B, K].
        pixels: an input of the model.

    Raises:
        InputError: the model does not end in a linear layer on features [B, D].
    """
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda layer, given, out: seen.append((layer, given[0], out)))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            logits = model(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, features, out in reversed(seen):
        if features.ndim == 2 and out.shape == logits.shape and torch.equal(out.float(), logits.float()):
            return layer
    raise InputError(
        "scores from features need a model that ends in a linear layer of torch.nn on [batch, features], and this one "
        "does not (nor does an exported program): leave them out, or name a layer as `feature_layer`."
    )


def _unit(features: Tensor) -> Tensor:
    features = features.double()
    return features / features.norm(dim=1, keepdim=True).clamp_min(1e-30)


def _classes(fit: FitData) -> tuple[Tensor, Tensor]:
    """Class means float64 [K, D], and the inverse of the covariance within classes."""
    classes = len(fit.weight) if fit.classes is None else fit.classes
    counts = torch.bincount(fit.labels, minlength=classes)
    if not counts.all():
        absent = int((counts == 0).sum())
        raise InputError(f"{absent} of {classes} classes have no training features: give images of every class.")
    means = torch.zeros(classes, fit.features.shape[1], dtype=torch.float64, device=fit.features.device)
    for labels, chunk in zip(fit.labels.split(_ROWS), fit.features.split(_ROWS)):
        means.index_add_(0, labels, chunk.double())
    means /= counts[:, None]
    return means, _inverse_covariance(fit.features, fit.labels, means)


def _inverse_covariance(features: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    return torch.linalg.pinv(_scatter(features, labels, means) / len(features), hermitian=True)


def _scatter(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """The sum over features of (x - center)(x - center)', float64 [D, D]; a label is the number of a center."""
    total = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=features.device)
    for own, chunk in zip(labels.split(_ROWS), features.split(_ROWS)):
        centered = chunk.double() - centers[own]
        total += centered.T @ centered
    return total


def _nearest(features: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """The largest of -(x - mean)' P (x - mean) over the means: float64 [B]."""
    projected = features @ precision
    own = (projected * features).sum(1)[:, None]
    to = (means @ precision * means).sum(1)
    return -(own - 2 * projected @ means.T + to).amin(1)


def _percentile(values: Tensor, percentile: float) -> float:
    """``numpy.percentile``, interpolated in float64 without a float64 copy."""
    if not 0 <= percentile <= 100:
        raise InputError(f"`percentile` is {percentile:g}: give 0 to 100.")
    flat = values.flatten().cpu().numpy()
    at = (flat.size - 1) * percentile / 100
    low, high = math.floor(at), math.ceil(at)
    ordered = np.partition(flat, (low, high))
    below, above = float(ordered[low]), float(ordered[high])
    return below if below == above else below + (above - below) * (at - low)
