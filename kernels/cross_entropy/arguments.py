"""Checks of the arguments that the losses share. Each error names the parameter, its value and what to give instead."""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.checks import check_range, check_tensor, within
from fastreg.kernels.cross_entropy.reference import IGNORE
from fastreg.kernels.dispatch import to_device
from fastreg.kernels.types import Targets

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
REDUCTIONS = ("none", "sum", "mean")


def check_logits(logits: Tensor, reduction: str) -> None:
    if logits.dtype not in DTYPES:
        raise TypeError(f"`logits` is {logits.dtype}: give torch.float32, float16, bfloat16 or float64.")
    if logits.dim() != 2 or logits.shape[1] < 1:
        raise ValueError(f"`logits` has shape {list(logits.shape)}: give [B, C] with C of 1 or more.")
    if logits.device.type not in ("cpu", "cuda"):
        raise ValueError(f"`logits` is on {logits.device.type!r}: give a CPU or CUDA tensor.")
    if reduction not in REDUCTIONS:
        raise ValueError(f"`reduction` is {reduction!r}: give 'none', 'sum' or 'mean'.")


def check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"`label_smoothing` is {label_smoothing}: give a number from 0 to 1.")


def check_pairs(
    targets: Targets | Tensor, logits: Tensor, check_labels: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Check ``Targets`` or hard labels and return a, b and lam, contiguous. Hard labels have neither b nor lam."""
    B, C = logits.shape
    fields = {"targets": targets} if isinstance(targets, Tensor) else Targets(*targets)._asdict()
    for name, field in fields.items():
        check_tensor(name, field, torch.float32 if name == "lam" else torch.int64, (B,), logits.device)
        if (check_labels or not field.is_cuda) and not torch.compiler.is_compiling():
            if name == "lam":
                check_range(name, field, 0, 1)
            else:
                _check_labels(name, field, C)
    a, *pair = (field.contiguous() for field in fields.values())
    return a, pair[0] if pair else None, pair[1] if pair else None


def is_dense(targets: Targets | Tensor) -> bool:
    return isinstance(targets, Tensor) and targets.is_floating_point()


def check_targets(
    targets: Targets | Tensor, logits: Tensor, check_labels: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Check targets of any kind and return ``(a, b, lam, dense)``, contiguous; None for those that are not given."""
    if not is_dense(targets):
        return *check_pairs(targets, logits, check_labels), None
    assert isinstance(targets, Tensor)
    if targets.dtype not in DTYPES:
        raise TypeError(f"`targets` is {targets.dtype}: give torch.float32, float16, bfloat16 or float64.")
    check_tensor("targets", targets, targets.dtype, tuple(logits.shape), logits.device)
    _check_constant("targets", targets)
    return None, None, None, targets.contiguous()


def check_class_weight(class_weight: Tensor | None, logits: Tensor) -> Tensor | None:
    """Check weights [C] and return them on the logits' device."""
    if class_weight is None:
        return None
    check_tensor("class_weight", class_weight, torch.float32, (logits.shape[1],))
    _check_constant("class_weight", class_weight)
    return to_device(class_weight, logits.device, "class_weight")


def _check_constant(name: str, value: Tensor) -> None:
    if value.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"`{name}` requires a gradient, and the loss has one in `logits` only: give {name}.detach().")


def _check_labels(name: str, labels: Tensor, C: int) -> None:
    if within(labels, 0, C - 1):
        return
    good = ((labels >= 0) & (labels < C)) | (labels == IGNORE)
    if not good.all():
        raise ValueError(
            f"`{name}` holds {labels[~good].tolist()[:8]}: give labels from 0 to {C - 1}, or {IGNORE} to ignore."
        )
