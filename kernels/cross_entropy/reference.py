"""Cross-entropy on label pairs in plain torch, the oracle of the kernels.

    row = w * lse(z) - (1 - eps) * (wa * z[a] + wb * z[b]) - w * (eps / C) * sum(z)
    dz[i] = g * (w * softmax(z)[i] - (1 - eps) * (wa * [i = a] + wb * [i = b]) - w * eps / C)

with wa = lam, wb = 1 - lam, each 0 where its label is ignored, and w = wa + wb. The weights add where a == b. The mean
is the sum of the rows over the sum of w.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORE = -100
NONE, SUM, MEAN = 0, 1, 2

Labels = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, float]  # a, b, lam, eps per row, eps of all


def pair_weights(labels: Labels, C: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(wa, wb, w, poison). Poison is NaN where a label is outside [0, C) or lam outside [0, 1], else 0."""
    a, b, lam, _, _ = labels
    lam = torch.ones_like(a, dtype=torch.float32) if lam is None else lam
    b = a if b is None else b
    bad = ~((lam >= 0) & (lam <= 1))
    for label in (a, b):
        bad = bad | ((label != IGNORE) & ((label < 0) | (label >= C)))
    wa, wb = lam * (a != IGNORE), (1 - lam) * (b != IGNORE)
    return wa, wb, wa + wb, torch.where(bad, torch.nan, 0.0)


def _resolved(labels: Labels) -> tuple[Tensor, Tensor, Tensor]:
    """a, b and eps. Hard labels are a pair of equal labels; one smoothing for all rows is a scalar tensor."""
    a, b, _, eps, smoothing = labels
    return a, a if b is None else b, torch.tensor(smoothing, device=a.device) if eps is None else eps


def forward_reference(logits: Tensor, labels: Labels, reduction: int, score: bool) -> Any:
    a, b, eps = _resolved(labels)
    z, C = logits.float(), logits.shape[1]
    wa, wb, w, poison = pair_weights(labels, C)
    lse = z.logsumexp(dim=1)
    loss = w * lse - (1 - eps) * (_weighted_logit(wa, z, a) + _weighted_logit(wb, z, b))
    loss = loss - torch.where(eps > 0, w * (eps / C) * z.sum(dim=1), 0.0)
    loss = torch.where(w == 0, 0.0, loss) + poison
    hit, confidence = z.new_empty(0), z.new_empty(0)
    if score:
        top, best = z.max(dim=1)
        hit, confidence = wa * (best == a) + wb * (best == b), (top - lse).exp()
    total = w.sum() if reduction == MEAN else torch.ones((), device=z.device)
    if reduction == NONE:
        return loss, lse, z.new_empty(0), hit, confidence
    return loss.sum() / total, lse, total, hit, confidence


def _weighted_logit(weight: Tensor, z: Tensor, label: Tensor) -> Tensor:
    """weight * z[label]; a weight of 0 gives 0 even for an infinite logit."""
    z = z.gather(1, label.clamp(0, z.shape[1] - 1).unsqueeze(1)).squeeze(1)
    return torch.where(weight == 0, 0.0, weight * z)


def backward_reference(
    grad: Tensor, logits: Tensor, lse: Tensor, total: Tensor, labels: Labels, reduction: int
) -> Tensor:
    a, b, eps = _resolved(labels)
    C = logits.shape[1]
    wa, wb, w, poison = (t.unsqueeze(1) for t in pair_weights(labels, C))
    eps = eps.view(-1, 1)
    dz = w * (logits.float() - lse.unsqueeze(1)).exp() - w * eps / C
    for weight, label in ((wa, a), (wb, b)):
        dz.scatter_add_(1, label.clamp(0, C - 1).unsqueeze(1), -(1 - eps) * weight)
    g = grad if reduction == NONE else grad / total
    dz = torch.where(w == 0, 0.0, dz * g.view(-1, 1)) + poison
    return dz.to(logits.dtype)
