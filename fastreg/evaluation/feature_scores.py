"""Scores for out-of-distribution detection from features: higher is more in-distribution.

Each function fits to features of training images and returns a function from features to scores. Parameters are the
defaults of OpenOOD 1.5, whose code the formulas follow. All arithmetic is in float64, on the features' device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastreg.errors import InputError

__all__ = ["FEATURE_SCORES", "FitData", "dice", "head_of", "knn", "mahalanobis", "react", "relative_mahalanobis", "vim"]

Score = Callable[[Tensor], Tensor]  # float [B, D] to float64 [B]
_CHUNK = 2**24  # distances that are in memory at once


class FitData(NamedTuple):
    """Features of training images, and the linear layer that makes logits of them.

    Args:
        features: float [N, D].
        labels: int64 [N], in [0, K).
        weight: float [K, D].
        bias: float [K].
    """

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor


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
    middle = fit.features.double().mean(0, keepdim=True)
    background = _precision(fit.features.double() - middle)

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
    contribution = fit.features.double().mean(0) * weight
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
        InputError: ``dim`` is below 1.

    Source:
        Wang et al., ViM: out-of-distribution with virtual-logit matching (CVPR 2022); OpenOOD 1.5.
    """
    if dim < 1:
        raise InputError(f"`dim` is {dim}: give 1 or more.")
    weight, bias, known = fit.weight.double(), fit.bias.double(), fit.features.double()
    dim = dim if dim < known.shape[1] else max(1, known.shape[1] // 2)
    origin = -torch.linalg.pinv(weight) @ bias
    centered = known - origin
    _, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))  # ascending
    rest = vectors[:, : known.shape[1] - dim]

    def residual(features: Tensor) -> Tensor:
        return ((features - origin) @ rest).norm(dim=1)

    scale = (known @ weight.T + bias).amax(1).mean() / residual(known).mean()

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
        "scores from features need a model that ends in a linear layer, and this one does not: leave them out."
    )


def _unit(features: Tensor) -> Tensor:
    features = features.double()
    return features / features.norm(dim=1, keepdim=True).clamp_min(1e-30)


def _classes(fit: FitData) -> tuple[Tensor, Tensor]:
    """Class means float64 [K, D], and the inverse of the covariance within classes."""
    features, classes = fit.features.double(), len(fit.weight)
    counts = torch.bincount(fit.labels, minlength=classes)
    if not counts.all():
        absent = int((counts == 0).sum())
        raise InputError(f"{absent} of {classes} classes have no training features: give images of every class.")
    sums = torch.zeros(classes, features.shape[1], dtype=torch.float64, device=features.device)
    means = sums.index_add_(0, fit.labels, features) / counts[:, None]
    return means, _precision(features - means[fit.labels])


def _precision(centered: Tensor) -> Tensor:
    centered = centered - centered.mean(0)
    return torch.linalg.pinv(centered.T @ centered / len(centered), hermitian=True)


def _nearest(features: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """The largest of -(x - mean)' P (x - mean) over the means: float64 [B]."""
    projected = features @ precision
    own = (projected * features).sum(1)[:, None]
    to = (means @ precision * means).sum(1)
    return -(own - 2 * projected @ means.T + to).amin(1)


def _percentile(values: Tensor, percentile: float) -> float:
    if not 0 <= percentile <= 100:
        raise InputError(f"`percentile` is {percentile:g}: give 0 to 100.")
    return float(np.percentile(values.double().cpu().numpy(), percentile))
