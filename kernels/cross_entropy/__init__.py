"""Cross-entropy on label pairs: the loss of Mixup and CutMix with label smoothing, without dense targets.

``reference.py`` holds the formula, ``cpu.py`` the compiled CPU route, ``forward.py`` and ``backward.py`` the kernels,
``weighted.py`` the route of class weights and float targets, ``binary.py`` the binary cross-entropy. One launch forward
and one backward for "none", one more forward for "sum" and "mean". The host never waits for the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.kernels.checks import check_range, check_tensor
from fastreg.kernels.cross_entropy.arguments import (
    REDUCTIONS,
    check_class_weight,
    check_logits,
    check_pairs,
    check_smoothing,
    check_targets,
    is_dense,
)
from fastreg.kernels.cross_entropy.backward import backward_triton
from fastreg.kernels.cross_entropy.binary import mixed_binary_cross_entropy
from fastreg.kernels.cross_entropy.forward import forward_triton
from fastreg.kernels.cross_entropy.reference import backward_reference, forward_reference
from fastreg.kernels.cross_entropy.weighted import weighted_cross_entropy
from fastreg.kernels.dispatch import to_device, use_compiled, use_triton
from fastreg.kernels.types import Targets

__all__ = ["mixed_binary_cross_entropy", "mixed_cross_entropy", "scored_cross_entropy"]


def mixed_cross_entropy(
    logits: Tensor,
    targets: Targets | Tensor,
    label_smoothing: float | Tensor = 0.0,
    reduction: str = "mean",
    *,
    class_weight: Tensor | None = None,
    check_labels: bool = False,
) -> Tensor:
    """Cross-entropy on label pairs, differentiable in ``logits``.

    The smoothing is PyTorch's: eps / C on every class. The loss is computed in float32 for every dtype. On hard labels
    and on float targets the value is that of ``torch.nn.functional.cross_entropy``, on pairs the sum of two such values
    with the weights lam and 1 - lam.

    Args:
        logits: float32, float16, bfloat16 or float64 [B, C], C of 1 or more.
        targets: ``Targets``, or int64 [B] of hard labels, or weights of the classes [B, C] in float32, float16,
            bfloat16 or float64 (soft or multi-label targets; their values are not checked), on the logits' device. A
            label of -100 drops its share of the row, as in PyTorch.
        label_smoothing: Number in [0, 1], or float32 [B], one per row. 1 is the uniform target. Float targets are
            smoothed, too.
        reduction: "none", "sum" or "mean". The mean divides by the number of rows; for labels without the shares that
            are ignored, and with class weights by the sum of lam * weight[a] + (1 - lam) * weight[b]. The mean of no
            rows is NaN.
        class_weight: float32 [C], the factor of each class's term, or None.
        check_labels: Whether to check labels and lam on a GPU, too, which synchronizes. On the CPU they are always
            checked. Unchecked, a row with a label outside [0, C) or lam outside [0, 1] has the loss NaN.

    Returns:
        float32 [], or [B] for "none". The gradient has the dtype of ``logits``.

    Raises:
        TypeError: An argument has a wrong dtype.
        ValueError: An argument has a wrong shape, device or value, or ``targets`` or ``class_weight`` requires a
            gradient.

    Source:
        Mixup: Zhang et al., 2018; CutMix: Yun et al., 2019; label smoothing: Szegedy et al., 2016.
    """
    if class_weight is None and not is_dense(targets):
        return _loss(logits, targets, label_smoothing, reduction, False, check_labels)[0]
    logits, eps, smoothing = _check(logits, label_smoothing, reduction)
    given = (*check_targets(targets, logits, check_labels), check_class_weight(class_weight, logits))
    return weighted_cross_entropy(logits, *given, eps, smoothing, REDUCTIONS.index(reduction))


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


def _loss(
    logits: Tensor, targets: Any, smoothing: float | Tensor, reduction: str, score: bool, check_labels: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if is_dense(targets):
        raise TypeError(f"`targets` is {targets.dtype}: give Targets or torch.int64, which accuracy is defined for.")
    logits, eps, smoothing = _check(logits, smoothing, reduction)
    pair = check_pairs(targets, logits, check_labels)
    arguments = (logits, *pair, eps, smoothing, REDUCTIONS.index(reduction), score)
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
    if run is forward_reference and use_compiled(logits, a, b, lam, eps):
        from fastreg.kernels.cross_entropy.cpu import forward_cpu as run
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
    if run is backward_reference and use_compiled(grad, logits, a, b, lam, eps):
        from fastreg.kernels.cross_entropy.cpu import backward_cpu as run
    return run(grad, logits, lse, total, (a, b, lam, eps, smoothing), reduction)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
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
    def forward(ctx: Any, *inputs: Any) -> Any:
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        saved: list = [*ctx.saved_tensors, ctx.smoothing, ctx.reduction]
        return _backward(grad, *saved), *[None] * 7


# The two opaque operators that torch.compile sees.
_forward_op = torch.library.custom_op("fastreg::cross_entropy", _forward, mutates_args=())
_backward_op = torch.library.custom_op("fastreg::cross_entropy_backward", _backward, mutates_args=())


@_forward_op.register_fake
def _(logits: Tensor, a: Any, b: Any, lam: Any, eps: Any, smoothing: Any, reduction: Any, score: Any) -> Any:
    def rows(n: Any) -> Tensor:
        return logits.new_empty(n, dtype=torch.float32)

    B, scored = len(logits), len(logits) if score else 0
    return rows(() if reduction else B), rows(B), rows(() if reduction else 0), rows(scored), rows(scored)


@_backward_op.register_fake
def _(grad: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


def _backward_compiled(ctx: Any, grad: Tensor, *_: Any) -> Any:
    return _backward_op(grad, *ctx.saved_tensors, ctx.smoothing, ctx.reduction), *[None] * 7


_forward_op.register_autograd(_backward_compiled, setup_context=_save)


def _check(logits: Tensor, smoothing: float | Tensor, reduction: str) -> tuple[Tensor, Tensor | None, float]:
    """Check the arguments and return contiguous logits, the smoothing per row, and that of all rows."""
    check_logits(logits, reduction)
    if not isinstance(smoothing, Tensor):
        check_smoothing(smoothing)
        return logits.contiguous(), None, float(smoothing)
    check_tensor("label_smoothing", smoothing, torch.float32, (len(logits),))
    if not smoothing.is_cuda and not torch.compiler.is_compiling():
        check_range("label_smoothing", smoothing, 0, 1)
    return logits.contiguous(), to_device(smoothing, logits.device, "label_smoothing"), 0.0
