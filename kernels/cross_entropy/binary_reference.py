"""Binary cross-entropy on label pairs in plain torch, the oracle of the kernels.

    t[c]    = eps / C + (1 - eps) * (sa * [c = a] + sb * [c = b]), then with a threshold: 1 above it, else 0
    term[c] = w * v[c] * (softplus(z[c]) - t[c] * z[c])
    dz[c]   = g * w * v[c] * (sigmoid(z[c]) - t[c])

with the class weight v and the row weight w: lam if a is not ignored, plus 1 - lam if b is not ignored. sa and sb are
the shares of these labels in the row: lam and 1 - lam, or 1 for a single one. The mean divides by C * sum(w), with
``sum_classes`` by sum(w). Dense targets are t before the threshold, with w = 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy.reference import IGNORE, MEAN, NONE, pair_weights


class BinaryTargets(NamedTuple):
    """The targets of a call: either ``dense`` or ``a``; hard labels have neither ``b`` nor ``lam``."""

    a: Tensor | None
    b: Tensor | None
    lam: Tensor | None
    dense: Tensor | None
    class_weight: Tensor | None
    smoothing: float
    threshold: float | None


class Shape(NamedTuple):
    """The reduction of a call, which gives its result's shape."""

    reduction: int
    sum_classes: bool


def loss_terms(z: Tensor, t: Tensor) -> Tensor:
    """softplus(z) - t * z as a sum of two terms of one sign for t in [0, 1]. Infinite logits on their target give 0."""
    rest = torch.where(z > 0, 1 - t, t)
    return (-z.abs()).exp().log1p() + torch.where(rest == 0, 0.0, rest * z.abs())


def loss_slopes(z: Tensor, t: Tensor) -> Tensor:
    """sigmoid(z) - t, without cancellation where z is large and t is 1."""
    e = (-z.abs()).exp()
    tail = e / (1 + e)
    return torch.where(z > 0, (1 - t) - tail, tail - t)


def dense_targets(targets: BinaryTargets, B: int, C: int) -> tuple[Tensor, Tensor]:
    """(t [B, C], w [B]) in float32. A row with a label outside [0, C) or lam outside [0, 1] has the weight NaN."""
    if targets.dense is not None:
        t, w = targets.dense.float(), torch.ones(B, device=targets.dense.device)
    else:
        a, lam = targets.a, targets.lam
        assert a is not None
        b = a if targets.b is None else targets.b
        wa, wb, w, poison = pair_weights((a, targets.b, lam, None, 0.0), C)
        w = w + poison
        share_a = torch.where((b == IGNORE) & (a != IGNORE), 1.0, wa)
        share_b = torch.where((a == IGNORE) & (b != IGNORE), 1.0, wb)
        t = torch.zeros(B, C, device=a.device)
        for share, label in ((share_a, a), (share_b, b)):
            t.scatter_add_(1, label.clamp(0, C - 1).unsqueeze(1), torch.where(label == IGNORE, 0.0, share).unsqueeze(1))
        t = targets.smoothing / C + (1 - targets.smoothing) * t
    if targets.threshold is not None:
        t = torch.where(t.isnan(), t, (t > targets.threshold).float())
    return t, w


def forward_reference(logits: Tensor, targets: BinaryTargets, shape: Shape) -> tuple[Tensor, Tensor]:
    t, w = dense_targets(targets, *logits.shape)
    terms = loss_terms(logits.float(), t)
    terms = terms if targets.class_weight is None else terms * targets.class_weight
    terms = torch.where(w.unsqueeze(1) == 0, 0.0, terms * w.unsqueeze(1))
    if shape.reduction == NONE:
        return terms.sum(dim=1) if shape.sum_classes else terms, terms.new_empty(0)
    total = torch.ones((), device=logits.device)
    if shape.reduction == MEAN:
        total = w.sum() * (1 if shape.sum_classes else logits.shape[1])
    return terms.sum() / total, total


def backward_reference(grad: Tensor, logits: Tensor, total: Tensor, targets: BinaryTargets, shape: Shape) -> Tensor:
    t, w = dense_targets(targets, *logits.shape)
    dz = loss_slopes(logits.float(), t)
    dz = dz if targets.class_weight is None else dz * targets.class_weight
    if shape.reduction == NONE:
        g = grad.unsqueeze(1) if shape.sum_classes else grad
    else:
        g = grad / total
    return torch.where(w.unsqueeze(1) == 0, 0.0, dz * w.unsqueeze(1) * g).to(logits.dtype)
