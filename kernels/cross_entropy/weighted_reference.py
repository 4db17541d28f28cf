"""Cross-entropy with class weights or float targets in plain torch, the kernels' oracle.

    row   = S * lse(z) - sum(d * z),     S = sum(d)
    dz[c] = g * (S * softmax(z)[c] - d[c])

Labels: d[c] = v[c] * ((1 - eps) * (wa * [c = a] + wb * [c = b]) + w * eps / C), with the class weight v, wa = lam and
wb = 1 - lam, each 0 where its label is ignored, and w = wa + wb. The mean divides by the sum of wa * v[a] + wb * v[b].
Float targets q: d[c] = v[c] * ((1 - eps) * q[c] + eps / C). The mean divides by the number of rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy.reference import MEAN, NONE, pair_weights


class WeightedTargets(NamedTuple):
    """The targets of a call: either ``dense`` or ``a``; hard labels have neither ``b`` nor ``lam``."""

    a: Tensor | None
    b: Tensor | None
    lam: Tensor | None
    dense: Tensor | None
    class_weight: Tensor | None
    eps: Tensor | None  # smoothing per row, else ``smoothing``
    smoothing: float


def target_weights(targets: WeightedTargets, B: int, C: int) -> tuple[Tensor, Tensor, Tensor]:
    """(d [B, C], w [B], divisor [B]) in float32; w is NaN for a label outside [0, C) or lam outside [0, 1]."""
    given = targets.a if targets.dense is None else targets.dense
    assert given is not None
    eps = torch.full((B,), targets.smoothing, device=given.device) if targets.eps is None else targets.eps
    eps = eps.unsqueeze(1)
    v = torch.ones(C, device=given.device) if targets.class_weight is None else targets.class_weight
    if targets.dense is not None:
        ones = torch.ones(B, device=given.device)
        return v * (targets.dense.float() * (1 - eps) + eps / C), ones, ones
    wa, wb, w, poison = pair_weights((given, targets.b, targets.lam, None, 0.0), C)
    d = v * (w.unsqueeze(1) * eps / C)
    divisor = torch.zeros_like(w)
    for weight, label in ((wa, given), (wb, given if targets.b is None else targets.b)):
        label = label.clamp(0, C - 1)
        share = weight * v[label]
        divisor = divisor + share
        d.scatter_add_(1, label.unsqueeze(1), (1 - eps) * share.unsqueeze(1))
    return d, w + poison, divisor


def forward_reference(logits: Tensor, targets: WeightedTargets, reduction: int) -> tuple[Tensor, Tensor, Tensor]:
    d, w, divisor = target_weights(targets, *logits.shape)
    z = logits.float()
    lse, scale = z.logsumexp(dim=1), d.sum(dim=1)
    loss = scale * lse - torch.where(d == 0, 0.0, d * z).sum(dim=1)
    loss = torch.where(w == 0, 0.0, loss + w * 0)  # a NaN of w stays
    rows = torch.stack([lse, scale])
    if reduction == NONE:
        return loss, rows, z.new_empty(0)
    total = divisor.sum() if reduction == MEAN else torch.ones((), device=z.device)
    return loss.sum() / total, rows, total


def backward_reference(
    grad: Tensor, logits: Tensor, rows: Tensor, total: Tensor, targets: WeightedTargets, reduction: int
) -> Tensor:
    d, w, _ = target_weights(targets, *logits.shape)
    lse, scale = rows.unsqueeze(2)
    dz = scale * (logits.float() - lse).exp() - d
    g = grad if reduction == NONE else grad / total
    w = w.unsqueeze(1)
    return torch.where(w == 0, 0.0, (dz + w * 0) * g.view(-1, 1)).to(logits.dtype)
