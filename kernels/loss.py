"""Cross-entropy on label pairs: Mixup's and CutMix's loss with smoothing, no dense targets.

    row = w * lse(z) - (1 - eps) * (wa * z[a] + wb * z[b]) - w * (eps / C) * sum(z)

with wa = lam, wb = 1 - lam (0 where that label is ``ignore_index``) and w = wa + wb. The gradient is

    dz[i] = g * (w * softmax(z)[i] - (1 - eps) * (wa * [i = a] + wb * [i = b]) - w * eps / C)

so the weights add when a == b. ``mean`` divides by the sum of w, as PyTorch divides by the count of rows kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.types import Targets

IGNORE = -100
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_REDUCTIONS = ("none", "sum", "mean")


def mixed_cross_entropy(
    logits: Tensor,
    targets: Targets | Tensor,
    label_smoothing: float | Tensor = 0.0,
    reduction: str = "mean",
    *,
    check_labels: bool = False,
) -> Tensor:
    """Cross-entropy with label pairs, differentiable in ``logits``.

    logits: float32, float16 or bfloat16 [B, C]; C from 2. ``targets``: ``Targets``, or int64 [B] of hard labels; a
    label of -100 drops its share of the row, as in PyTorch. ``label_smoothing``: a float in [0, 1], or float32 [B], one
    per row; 1 is the uniform target. ``reduction``: "none", "sum" or "mean". The loss is float32 for every dtype, the
    gradient has the logits' dtype. The smoothing is PyTorch's: eps / C on every class.

    Labels and lam are checked on the CPU always; on the GPU, where the check would stop the stream, only with
    ``check_labels``. Unchecked, a row with a label outside [0, C) or lam outside [0, 1] has the loss NaN.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device or value.
    """
    return _loss(logits, targets, label_smoothing, reduction, check_labels)[0]


def scored_cross_entropy(
    logits: Tensor,
    targets: Targets | Tensor,
    label_smoothing: float | Tensor = 0.0,
    reduction: str = "none",
    *,
    check_labels: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """``mixed_cross_entropy`` and, from the same pass, per row: (loss, hit, confidence).

    hit: float32 [B], the weight of the labels that the top class meets: 0 or 1 on hard labels. confidence: float32
    [B], the top class's softmax probability. Neither carries a gradient.
    """
    return _loss(logits, targets, label_smoothing, reduction, check_labels)


def _loss(logits, targets, label_smoothing, reduction, check_labels) -> tuple[Tensor, Tensor, Tensor]:
    targets = _check(logits, targets, label_smoothing, reduction, check_labels)
    if isinstance(label_smoothing, Tensor):
        label_smoothing = label_smoothing.to(logits.device, non_blocking=True)
    return cross_entropy_plain(logits, targets, label_smoothing, reduction)


def cross_entropy_plain(
    logits: Tensor, targets: Targets, eps: float | Tensor, reduction: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The reference: (loss, hit, confidence) after the arguments are checked."""
    z, C = logits.float(), logits.shape[1]
    wa, wb = (share * (label != IGNORE) for share, label in ((targets.lam, targets.a), (1 - targets.lam, targets.b)))
    weight = wa + wb
    lse = z.logsumexp(dim=1)
    picked = _weighted(wa, z, targets.a) + _weighted(wb, z, targets.b)
    loss = weight * lse - (1 - eps) * picked
    if isinstance(eps, Tensor) or eps > 0:
        loss = loss - weight * torch.where(torch.as_tensor(eps, device=z.device) > 0, eps / C * z.sum(dim=1), 0)
    loss = torch.where(weight > 0, loss, torch.where(weight == 0, 0, torch.nan))
    if reduction == "sum":
        loss = loss.sum()
    elif reduction == "mean":
        loss = loss.sum() / weight.sum()
    with torch.no_grad():
        top, best = z.max(dim=1)
        hit = wa * (best == targets.a) + wb * (best == targets.b)
        confidence = (top - lse).exp()
    return loss, hit, confidence


def _weighted(weight: Tensor, z: Tensor, label: Tensor) -> Tensor:
    """weight * z[label], where weight 0 is 0 even against an infinite logit."""
    z = z.gather(1, label.clamp(0, z.shape[1] - 1).unsqueeze(1)).squeeze(1)
    return torch.where(weight == 0, 0, weight * z)


def _check(logits, targets, label_smoothing, reduction, check_labels) -> Targets:
    if logits.dtype not in _DTYPES:
        raise TypeError(f"mixed_cross_entropy needs float32, float16 or bfloat16 logits, got {logits.dtype}")
    if logits.dim() != 2 or logits.shape[0] < 1 or logits.shape[1] < 2:
        raise ValueError(f"mixed_cross_entropy needs logits [B, C] with C from 2, got {tuple(logits.shape)}")
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be none, sum or mean, not {reduction!r}")
    B, C = logits.shape
    if isinstance(targets, Tensor):
        targets = Targets(targets, targets, torch.ones(len(targets), device=targets.device))
    for name, field, dtype in zip(Targets._fields, targets, (torch.int64, torch.int64, torch.float32)):
        _check_row(f"targets.{name}", field, dtype, B, logits.device)
        if (check_labels or not field.is_cuda) and not torch.compiler.is_compiling():
            low, high = (0, 1) if name == "lam" else (0, C - 1)
            good = (field >= low) & (field <= high) | (field == IGNORE if name != "lam" else False)
            if not good.all():
                raise ValueError(f"targets.{name} must lie in [{low}, {high}], got {field[~good].tolist()[:8]}")
    if isinstance(label_smoothing, Tensor):
        _check_row("label_smoothing", label_smoothing, torch.float32, B, None)
    elif not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
    return targets


def _check_row(name: str, field: Tensor, dtype: torch.dtype, B: int, device: torch.device | None) -> None:
    if field.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {field.dtype}")
    if tuple(field.shape) != (B,):
        raise ValueError(f"{name} must have shape ({B},), got {tuple(field.shape)}")
    if device is not None and field.device != device:
        raise ValueError(f"{name} is on {field.device} but the logits are on {device}")
