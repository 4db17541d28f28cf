"""Cross-entropy on label pairs: the loss of Mixup and CutMix with label smoothing, without dense targets.

``reference.py`` holds the formula and the CPU route, ``forward.py`` and ``backward.py`` the kernels. One launch forward
and one backward for "none", one more forward for "sum" and "mean". The host never waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.checks import check_range, check_tensor
from fastreg.kernels.cross_entropy.backward import backward_triton
from fastreg.kernels.cross_entropy.forward import forward_triton
from fastreg.kernels.cross_entropy.reference import IGNORE, backward_reference, forward_reference
from fastreg.kernels.dispatch import to_device, use_triton
from fastreg.kernels.types import Targets

__all__ = ["mixed_cross_entropy", "scored_cross_entropy"]

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
    """Cross-entropy on label pairs, differentiable in ``logits``.

    The smoothing is PyTorch's: eps / C on every class. The loss is computed in float32 for every dtype.

    Args:
        logits: float32, float16, bfloat16 or float64 [B, C], C of 1 or more.
        targets: ``Targets``, or int64 [B] of hard labels, on the logits' device. A label of -100 drops its share of the
            row, as in PyTorch.
        label_smoothing: Number in [0, 1], or float32 [B], one per row. 1 is the uniform target.
        reduction: "none", "sum" or "mean". The mean of no rows is NaN.
        check_labels: Whether to check labels and lam on a GPU, too, which synchronizes. On the CPU they are always
            checked. Unchecked, a row with a label outside [0, C) or lam outside [0, 1] has the loss NaN.

    Returns:
        float32 [], or [B] for "none". The gradient has the dtype of ``logits``.

    Raises:
        TypeError: An argument has a wrong dtype.
        ValueError: An argument has a wrong shape, device or value.

    Source:
        Mixup: Zhang et al., 2018; CutMix: Yun et al., 2019; label smoothing: Szegedy et al., 2016.
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
    """Cross-entropy on label pairs, with accuracy and confidence of each row from the same pass.

    Args:
        logits: float32, float16, bfloat16 or float64 [B, C], as for ``mixed_cross_entropy``.
        targets: ``Targets``, or int64 [B] of hard labels, as for ``mixed_cross_entropy``.
        label_smoothing: Number in [0, 1], or float32 [B], one per row.
        reduction: "none", "sum" or "mean", of the loss.
        check_labels: Whether to check labels and lam on a GPU, too, which synchronizes.

    Returns:
        The loss, float32 [B] or []; hit, float32 [B], the weight of the labels that equal the top class (0 or 1 for
        hard labels); confidence, float32 [B], the softmax probability of the top class. Only the loss has a gradient.

    Raises:
        TypeError: An argument has a wrong dtype.
        ValueError: An argument has a wrong shape, device or value.

    Source:
        As ``mixed_cross_entropy``.
    """
    return _loss(logits, targets, label_smoothing, reduction, True, check_labels)


def _loss(logits, targets, smoothing, reduction, score, check_labels) -> tuple[Tensor, Tensor, Tensor]:
    a, b, lam = _check(logits, targets, smoothing, reduction, check_labels)
    eps, smoothing = (smoothing, 0.0) if isinstance(smoothing, Tensor) else (None, float(smoothing))
    eps = eps if eps is None else to_device(eps, logits.device, "label_smoothing")
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
    """(loss, lse [B], total weight [], hit [B], confidence [B]); outputs that are not requested are empty."""
    run = forward_triton if use_triton(logits) else forward_reference
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
    run = backward_triton if use_triton(logits) else backward_reference
    return run(grad, logits, lse, total, (a, b, lam, eps, smoothing), reduction)


def _save(ctx, inputs, output) -> None:
    logits, a, b, lam, eps, smoothing, reduction, _ = inputs
    _, lse, total, _, _ = output
    ctx.save_for_backward(logits, lse, total, a, b, lam, eps)
    ctx.smoothing, ctx.reduction = smoothing, reduction
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # otherwise each backward fills zeros for these outputs, a launch each


class _CrossEntropy(torch.autograd.Function):
    """The eager route. It bypasses torch.library, whose bookkeeping costs more than the launch.

    ``_save`` is called here for the same reason: as ``setup_context``, which torch.func needs, it takes 35 us per call.
    """

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


# The two opaque operators that torch.compile sees.
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
    """Check the arguments and return a, b and lam. Hard labels have neither b nor lam."""
    if logits.dtype not in _DTYPES:
        raise TypeError(f"`logits` is {logits.dtype}: give torch.float32, float16, bfloat16 or float64.")
    if logits.dim() != 2 or logits.shape[1] < 1:
        raise ValueError(f"`logits` has shape {list(logits.shape)}: give [B, C] with C of 1 or more.")
    if logits.device.type not in ("cpu", "cuda"):
        raise ValueError(f"`logits` is on {logits.device.type!r}: give a CPU or CUDA tensor.")
    if reduction not in _REDUCTIONS:
        raise ValueError(f"`reduction` is {reduction!r}: give 'none', 'sum' or 'mean'.")
    B, C = logits.shape
    fields = {"targets": targets} if isinstance(targets, Tensor) else Targets(*targets)._asdict()
    for name, field in fields.items():
        check_tensor(name, field, torch.float32 if name == "lam" else torch.int64, (B,), logits.device)
        if (check_labels or not field.is_cuda) and not torch.compiler.is_compiling():
            if name == "lam":
                check_range(name, field, 0, 1)
            else:
                _check_labels(name, field, C)
    if isinstance(label_smoothing, Tensor):
        check_tensor("label_smoothing", label_smoothing, torch.float32, (B,))
        if not label_smoothing.is_cuda and not torch.compiler.is_compiling():
            check_range("label_smoothing", label_smoothing, 0, 1)
    elif not 0 <= label_smoothing <= 1:
        raise ValueError(f"`label_smoothing` is {label_smoothing}: give a number from 0 to 1.")
    a, *pair = (field.contiguous() for field in fields.values())
    return a, pair[0] if pair else None, pair[1] if pair else None


def _check_labels(name: str, labels: Tensor, C: int) -> None:
    good = ((labels >= 0) & (labels < C)) | (labels == IGNORE)
    if not good.all():
        raise ValueError(
            f"`{name}` holds {labels[~good].tolist()[:8]}: give labels from 0 to {C - 1}, or {IGNORE} to ignore."
        )
