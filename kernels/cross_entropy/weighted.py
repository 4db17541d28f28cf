"""Cross-entropy with class weights or float targets, without copies of the targets.

``weighted_reference.py`` has the formula, ``weighted_cpu.py`` the compiled CPU route, ``weighted_kernels.py`` the
kernels. "none" takes one launch forward and one backward; "sum" and "mean" take one more forward. The host never waits
for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy.weighted_kernels import backward_triton, forward_triton
from fastreg.kernels.cross_entropy.weighted_reference import WeightedTargets, backward_reference, forward_reference
from fastreg.kernels.dispatch import use_compiled, use_triton


def weighted_cross_entropy(
    logits: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    lam: Tensor | None,
    dense: Tensor | None,
    class_weight: Tensor | None,
    eps: Tensor | None,
    smoothing: float,
    reduction: int,
) -> Tensor:
    """The loss of checked, contiguous arguments; ``reduction`` is 0 for "none", 1 for "sum", 2 for "mean"."""
    run = _forward_op if torch.compiler.is_compiling() else _WeightedCrossEntropy.apply
    return run(logits, a, b, lam, dense, class_weight, eps, smoothing, reduction)[0]


def _forward(
    logits: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    lam: Tensor | None,
    dense: Tensor | None,
    class_weight: Tensor | None,
    eps: Tensor | None,
    smoothing: float,
    reduction: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, log-sum-exp and sum of weights [2, B], divisor of the mean []); for "none" the divisor is empty."""
    run = forward_triton if use_triton(logits) else forward_reference
    if run is forward_reference and use_compiled(logits, a, b, lam, dense, class_weight, eps):
        from fastreg.kernels.cross_entropy.weighted_cpu import forward_cpu as run
    return run(logits, WeightedTargets(a, b, lam, dense, class_weight, eps, smoothing), reduction)


def _backward(
    grad: Tensor,
    logits: Tensor,
    rows: Tensor,
    total: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    lam: Tensor | None,
    dense: Tensor | None,
    class_weight: Tensor | None,
    eps: Tensor | None,
    smoothing: float,
    reduction: int,
) -> Tensor:
    run = backward_triton if use_triton(logits) else backward_reference
    if run is backward_reference and use_compiled(grad, logits, a, b, lam, dense, class_weight, eps):
        from fastreg.kernels.cross_entropy.weighted_cpu import backward_cpu as run
    targets = WeightedTargets(a, b, lam, dense, class_weight, eps, smoothing)
    return run(grad, logits, rows, total, targets, reduction)


def _save(ctx, inputs, output) -> None:
    logits, *tensors, ctx.smoothing, ctx.reduction = inputs
    ctx.save_for_backward(logits, *output[1:], *tensors)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # otherwise each backward fills zeros for these outputs, a launch each


def _saved(ctx) -> tuple:
    return *ctx.saved_tensors, ctx.smoothing, ctx.reduction


class _WeightedCrossEntropy(torch.autograd.Function):
    """The eager route. It bypasses torch.library, as that of the plain cross-entropy does."""

    @staticmethod
    def forward(ctx, *inputs):
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, *_):
        return _backward(grad, *_saved(ctx)), *[None] * 8


# The two opaque operators that torch.compile sees.
_forward_op = torch.library.custom_op("fastreg::weighted_cross_entropy", _forward, mutates_args=())
_backward_op = torch.library.custom_op("fastreg::weighted_cross_entropy_backward", _backward, mutates_args=())


@_forward_op.register_fake
def _(logits, a, b, lam, dense, class_weight, eps, smoothing, reduction):
    def values(*shape):
        return logits.new_empty(shape, dtype=torch.float32)

    B = len(logits)
    return values(*(() if reduction else (B,))), values(2, B), values(*(() if reduction else (0,)))


@_backward_op.register_fake
def _(grad, logits, *_):
    return torch.empty_like(logits)


def _backward_compiled(ctx, grad, *_):
    return _backward_op(grad, *_saved(ctx)), *[None] * 8


_forward_op.register_autograd(_backward_compiled, setup_context=_save)
