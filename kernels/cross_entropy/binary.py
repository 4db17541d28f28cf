"""Binary cross-entropy on label pairs: one sigmoid per class, with label smoothing, without dense targets.

``binary_reference.py`` has the formula, ``binary_cpu.py`` the compiled CPU route, ``binary_kernels.py`` the kernels.
"none" takes one launch forward and one backward; "sum" and "mean" take one more forward. The host never waits for the
device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy.arguments import (
    REDUCTIONS,
    check_class_weight,
    check_logits,
    check_smoothing,
    check_targets,
)
from fastreg.kernels.cross_entropy.binary_kernels import backward_triton, forward_triton
from fastreg.kernels.cross_entropy.binary_reference import (
    BinaryTargets,
    Shape,
    backward_reference,
    forward_reference,
)
from fastreg.kernels.dispatch import use_compiled, use_triton
from fastreg.kernels.types import Targets


def mixed_binary_cross_entropy(
    logits: Tensor,
    targets: Targets | Tensor,
    label_smoothing: float = 0.0,
    target_threshold: float | None = None,
    sum_classes: bool = False,
    reduction: str = "mean",
    *,
    class_weight: Tensor | None = None,
    check_labels: bool = False,
) -> Tensor:
    """Binary cross-entropy on label pairs, differentiable in ``logits``.

    The target of class c is t = eps / C + (1 - eps) * (lam * [c = a] + (1 - lam) * [c = b]) in float32. With a
    threshold it becomes 1 where t is above it, and else 0. The loss is computed in float32 for every dtype.

    A label of -100 is ignored. The row's target is then that of its other label alone, before the threshold, and the
    row counts with that label's share (lam or 1 - lam) in the terms and in the divisor of the mean. A row without
    labels has terms of 0 and adds nothing to the divisor. Without a threshold this removes exactly the ignored label's
    part of the loss, which is linear in t.

    Args:
        logits: float32, float16, bfloat16 or float64 [B, C], C of 1 or more.
        targets: ``Targets``, or int64 [B] of hard labels, or probabilities [B, C] in float32, float16, bfloat16 or
            float64, on the logits' device. Probabilities are not smoothed, and their values are not checked.
        label_smoothing: Number in [0, 1].
        target_threshold: Number that targets are compared with, also probabilities. None: targets stay as they are.
        sum_classes: Whether to sum over the classes and then reduce over the rows. "mean" then divides by B.
        reduction: "none", "sum" or "mean". The mean divides by B * C, or by the share of it that is not ignored. The
            mean of no rows is NaN.
        class_weight: float32 [C], the factor of each class's terms. The divisor does not change.
        check_labels: Whether to check labels and lam on a GPU, too, which synchronizes. On the CPU they are always
            checked. Unchecked, a row with a label outside [0, C) or lam outside [0, 1] has the loss NaN.

    Returns:
        float32 []; for "none" [B, C], and [B] with ``sum_classes``. The gradient has the dtype of ``logits``.

    Raises:
        TypeError: An argument has a wrong dtype.
        ValueError: An argument has a wrong shape, device or value, or ``targets`` or ``class_weight`` requires a
            gradient.

    Source:
        Wightman et al., "ResNet strikes back", 2021, and ``BinaryCrossEntropy`` of timm.
    """
    check_logits(logits, reduction)
    check_smoothing(label_smoothing)
    if target_threshold is not None and not isinstance(target_threshold, (int, float)):
        raise TypeError(f"`target_threshold` is {type(target_threshold).__name__}: give a number or None.")
    arguments = (
        logits.contiguous(), *check_targets(targets, logits, check_labels), check_class_weight(class_weight, logits),
        float(label_smoothing), None if target_threshold is None else float(target_threshold), bool(sum_classes),
        REDUCTIONS.index(reduction),
    )  # fmt: skip
    run = _forward_op if torch.compiler.is_compiling() else _BinaryCrossEntropy.apply
    return run(*arguments)[0]


def _forward(
    logits: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    lam: Tensor | None,
    dense: Tensor | None,
    class_weight: Tensor | None,
    smoothing: float,
    threshold: float | None,
    sum_classes: bool,
    reduction: int,
) -> tuple[Tensor, Tensor]:
    """(loss, divisor of the mean []); for "none" the divisor is empty."""
    run = forward_triton if use_triton(logits) else forward_reference
    if run is forward_reference and use_compiled(logits, a, b, lam, dense, class_weight):
        from fastreg.kernels.cross_entropy.binary_cpu import forward_cpu as run
    return run(
        logits, BinaryTargets(a, b, lam, dense, class_weight, smoothing, threshold), Shape(reduction, sum_classes)
    )


def _backward(
    grad: Tensor,
    logits: Tensor,
    total: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    lam: Tensor | None,
    dense: Tensor | None,
    class_weight: Tensor | None,
    smoothing: float,
    threshold: float | None,
    sum_classes: bool,
    reduction: int,
) -> Tensor:
    run = backward_triton if use_triton(logits) else backward_reference
    if run is backward_reference and use_compiled(grad, logits, a, b, lam, dense, class_weight):
        from fastreg.kernels.cross_entropy.binary_cpu import backward_cpu as run
    targets = BinaryTargets(a, b, lam, dense, class_weight, smoothing, threshold)
    return run(grad, logits, total, targets, Shape(reduction, sum_classes))


def _save(ctx, inputs, output) -> None:
    logits, *tensors, ctx.smoothing, ctx.threshold, ctx.sum_classes, ctx.reduction = inputs
    ctx.save_for_backward(logits, output[1], *tensors)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # otherwise each backward fills zeros for the divisor, a launch


def _saved(ctx) -> tuple:
    return *ctx.saved_tensors, ctx.smoothing, ctx.threshold, ctx.sum_classes, ctx.reduction


class _BinaryCrossEntropy(torch.autograd.Function):
    """The eager route. It bypasses torch.library, as that of the cross-entropy does."""

    @staticmethod
    def forward(ctx, *inputs):
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, _):
        return _backward(grad, *_saved(ctx)), *[None] * 9


# The two opaque operators that torch.compile sees.
_forward_op = torch.library.custom_op("fastreg::binary_cross_entropy", _forward, mutates_args=())
_backward_op = torch.library.custom_op("fastreg::binary_cross_entropy_backward", _backward, mutates_args=())


@_forward_op.register_fake
def _(logits, a, b, lam, dense, class_weight, smoothing, threshold, sum_classes, reduction):
    def values(*shape):
        return logits.new_empty(shape, dtype=torch.float32)

    if reduction:
        return values(), values()
    return values(*logits.shape[: 1 if sum_classes else 2]), values(0)


@_backward_op.register_fake
def _(grad, logits, *_):
    return torch.empty_like(logits)


def _backward_compiled(ctx, grad, _):
    return _backward_op(grad, *_saved(ctx)), *[None] * 9


_forward_op.register_autograd(_backward_compiled, setup_context=_save)
