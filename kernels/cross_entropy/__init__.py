"""Cross-entropy on label pairs: Mixup's and CutMix's loss with smoothing, no dense targets.

Formula in ``loss_plain``; kernels in ``loss_forward`` and ``loss_backward``. One launch forward and one backward for
``none``, one more forward for ``sum`` and ``mean``; nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy.backward import backward_triton
from fastreg.kernels.cross_entropy.forward import forward_triton
from fastreg.kernels.cross_entropy.reference import IGNORE, backward_plain, forward_plain
from fastreg.kernels.dispatch import sent, use_triton
from fastreg.kernels.types import Targets

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
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

    logits: float32, float16, bfloat16 or float64 [B, C]. ``targets``: ``Targets``, or int64 [B] of hard labels; a
    label of -100 drops its share of the row, as in PyTorch. ``label_smoothing``: a float in [0, 1], or float32 [B], one
    per row; 1 is the uniform target. ``reduction``: "none", "sum" or "mean"; the mean of no rows is NaN. The loss is
    float32, and computed as such, for every dtype; the gradient has the logits' dtype. The smoothing is PyTorch's:
    eps / C on every class.

    Labels, lam and a tensor of smoothings are checked on the CPU always; on the GPU, where the check would stop the
    stream, labels and lam only with ``check_labels``. Unchecked, a row with a label outside [0, C) or lam outside
    [0, 1] has the loss NaN.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device or value.
    """
    return _loss(logits, targets, label_smoothing, reduction, False, check_labels)[0]


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
    return _loss(logits, targets, label_smoothing, reduction, True, check_labels)


def _loss(logits, targets, smoothing, reduction, score, check_labels) -> tuple[Tensor, Tensor, Tensor]:
    a, b, lam = _check(logits, targets, smoothing, reduction, check_labels)
    eps, smoothing = (smoothing, 0.0) if isinstance(smoothing, Tensor) else (None, float(smoothing))
    eps = eps if eps is None else sent(eps, logits.device, "label_smoothing")
    arguments = (logits.contiguous(), a, b, lam, eps, smoothing, _REDUCTIONS.index(reduction), score)
    run = _forward_op if torch.compiler.is_compiling() else _CrossEntropy.apply
    loss, _, _, hit, confidence = run(*arguments)
    return loss, hit, confidence


def _forward(
    logits: Tensor,
    a: Tensor,
    b: Tensor | None,
    lam: Tensor | None,
    eps: Tensor | None,
    smoothing: float,
    reduction: int,
    score: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(loss, lse [B], total weight [], hit [B], confidence [B]); what is not asked for is empty."""
    run = forward_triton if use_triton(logits) else forward_plain
    return run(logits, (a, b, lam, eps, smoothing), reduction, score)


def _backward(
    grad: Tensor,
    logits: Tensor,
    lse: Tensor,
    total: Tensor,
    a: Tensor,
    b: Tensor | None,
    lam: Tensor | None,
    eps: Tensor | None,
    smoothing: float,
    reduction: int,
) -> Tensor:
    run = backward_triton if use_triton(logits) else backward_plain
    return run(grad, logits, lse, total, (a, b, lam, eps, smoothing), reduction)


def _save(ctx, inputs, output) -> None:
    logits, a, b, lam, eps, smoothing, reduction, _ = inputs
    _, lse, total, _, _ = output
    ctx.save_for_backward(logits, lse, total, a, b, lam, eps)
    ctx.smoothing, ctx.reduction = smoothing, reduction
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # or every backward would fill zeros for these outputs, a launch each


class _CrossEntropy(torch.autograd.Function):
    """The eager route, past torch.library, whose bookkeeping would cost more than the launch. For the same reason
    ``_save`` is called here: as a ``setup_context``, which torch.func asks for, it would take 35 us of every call."""

    @staticmethod
    def forward(ctx, *inputs):
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, *_):
        saved: list = [*ctx.saved_tensors, ctx.smoothing, ctx.reduction]
        return _backward(grad, *saved), *[None] * 7


# What torch.compile sees: two opaque operators.
_forward_op = torch.library.custom_op("fastreg::cross_entropy", _forward, mutates_args=())
_backward_op = torch.library.custom_op("fastreg::cross_entropy_backward", _backward, mutates_args=())


@_forward_op.register_fake
def _(logits, a, b, lam, eps, smoothing, reduction, score):
    def rows(n):
        return logits.new_empty(n, dtype=torch.float32)

    B, scored = len(logits), len(logits) if score else 0
    return rows(() if reduction else B), rows(B), rows(() if reduction else 0), rows(scored), rows(scored)


@_backward_op.register_fake
def _(grad, logits, *_):
    return torch.empty_like(logits)


def _backward_compiled(ctx, grad, *_):
    return _backward_op(grad, *ctx.saved_tensors, ctx.smoothing, ctx.reduction), *[None] * 7


_forward_op.register_autograd(_backward_compiled, setup_context=_save)


def _check(logits, targets, label_smoothing, reduction, check_labels) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """a, b and lam, once the arguments are known to be good; hard labels have neither b nor lam."""
    if logits.dtype not in _DTYPES:
        raise TypeError(f"mixed_cross_entropy needs float logits, got {logits.dtype}")
    if logits.dim() != 2 or logits.shape[1] < 1:
        raise ValueError(f"mixed_cross_entropy needs logits [B, C] of a class or more, got {tuple(logits.shape)}")
    if logits.device.type not in ("cpu", "cuda"):
        raise ValueError(f"mixed_cross_entropy works on CPU and CUDA logits, not on {logits.device.type!r}")
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be none, sum or mean, not {reduction!r}")
    B, C = logits.shape
    fields = {"targets": targets} if isinstance(targets, Tensor) else Targets(*targets)._asdict()
    for name, field in fields.items():
        _check_row(name, field, torch.float32 if name == "lam" else torch.int64, B, logits.device)
        if (check_labels or not field.is_cuda) and not torch.compiler.is_compiling():
            top = 1 if name == "lam" else C - 1
            good = (field >= 0) & (field <= top)
            if name != "lam":
                good |= field == IGNORE
            if not good.all():
                raise ValueError(f"{name} must lie in [0, {top}], got {field[~good].tolist()[:8]}")
    if isinstance(label_smoothing, Tensor):
        _check_row("label_smoothing", label_smoothing, torch.float32, B, None)
        if not label_smoothing.is_cuda and not torch.compiler.is_compiling():
            if not ((label_smoothing >= 0) & (label_smoothing <= 1)).all():
                raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing.tolist()[:8]}")
    elif not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
    a, *pair = (field.contiguous() for field in fields.values())
    return a, pair[0] if pair else None, pair[1] if pair else None


def _check_row(name: str, field: Tensor, dtype: torch.dtype, B: int, device: torch.device | None) -> None:
    if not isinstance(field, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(field).__name__}")
    if field.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {field.dtype}")
    if tuple(field.shape) != (B,):
        raise ValueError(f"{name} must have shape ({B},), got {tuple(field.shape)}")
    if device is not None and field.device != device:
        raise ValueError(f"{name} is on {field.device} but the logits are on {device}")
