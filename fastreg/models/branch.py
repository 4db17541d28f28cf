"""ShakeDrop and stochastic depth: random factors on residual branches.

Both multiply a branch by one factor per sample, and its gradient by another. The method draws the random numbers
(``methods.create("shakedrop").fields``) and :func:`set_fields` copies them into the model, so a run repeats bit for bit
on any number of GPUs. Without ``set_fields`` the numbers come from torch's default generator, as in a dropout layer.

Source: Yamada et al., ShakeDrop regularization for deep residual learning (arXiv 1802.02375), section 3; Huang et al.,
Deep networks with stochastic depth (ECCV 2016), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastreg.errors import InputError


class Fields(nn.Module):
    """The current step's random numbers for all branches of a model; one instance per model.

    ShakeDrop reads ``gate`` [L], ``alpha`` and ``beta`` [B, L]; stochastic depth reads ``chance`` [B, L], uniform in
    [0, 1). All are float32. They are not registered buffers: DDP would broadcast rank 0's samples to all ranks, a
    moving average would average them, and ``model.half()`` would round them.
    """

    gate: Tensor | None = None
    alpha: Tensor | None = None
    beta: Tensor | None = None
    chance: Tensor | None = None

    def __init__(self, layers: int):
        super().__init__()
        self.layers = layers

    def set(self, values: Mapping[str, Tensor]) -> None:
        """Copy ``values``, in place where the shape is the same: a captured CUDA graph then reads the new numbers."""
        for name, value in values.items():
            if value.shape[-1] != self.layers:
                raise InputError(
                    f"`fields`: {name!r} has {value.shape[-1]} layers, the model has {self.layers} with dropped "
                    "branches: draw the fields with layers=branch_layers(model)."
                )
            own = getattr(self, name)
            if own is not None and own.shape == value.shape and own.device == value.device:
                own.copy_(value, non_blocking=True)
            else:
                setattr(self, name, value.clone())


class Scale(torch.autograd.Function):
    """``x * forward`` with the gradient ``gradient * backward``; x [B, ...], both factors [B]. Saves no activation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.ndim - 1)
        ctx.save_for_backward(backward.to(x.dtype).view(shape))
        return x * forward.to(x.dtype).view(shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (backward,) = ctx.saved_tensors
        return gradient * backward, None, None


class ShakeDrop(nn.Module):
    """Training: branch times b + a - b a, gradient times b + beta - b beta. Evaluation: branch times p.

    b ~ Bernoulli(p), one per layer and batch; a ~ U(-1, 1) and beta ~ U(0, 1), one each per layer and sample. p is the
    expectation of the factor: 1 - (layer + 1) / layers * (1 - last), with ``layer`` from 0 to ``layers`` - 1.
    """

    def __init__(self, fields: Fields, layer: int, layers: int, last: float = 0.5):
        super().__init__()
        self.fields, self.layer = fields, layer
        self.probability = survival(layer, layers, last)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * self.probability
        fields, layer = self.fields, self.layer
        if fields.gate is None or fields.alpha is None or fields.beta is None:
            gate = torch.bernoulli(torch.full((), self.probability, device=x.device))
            alpha, beta = torch.rand(2, len(x), device=x.device)
            alpha = 2 * alpha - 1
        else:
            gate = fields.gate[layer]
            alpha, beta = _own(fields.alpha, layer, x), _own(fields.beta, layer, x)
        return Scale.apply(x, gate + alpha - gate * alpha, gate + beta - gate * beta)


class StochasticDepth(nn.Module):
    """Training: branch times keep / p, keep ~ Bernoulli(p) per layer and sample. Evaluation: the unchanged branch."""

    def __init__(self, fields: Fields, layer: int, layers: int, last: float = 0.9):
        super().__init__()
        self.fields, self.layer = fields, layer
        self.probability = survival(layer, layers, last)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        field = self.fields.chance
        chance = torch.rand(len(x), device=x.device) if field is None else _own(field, self.layer, x)
        factor = (chance < self.probability).float() / self.probability
        return Scale.apply(x, factor, factor)

    def extra_repr(self) -> str:
        return f"p={self.probability:.3f}"


def survival(layer: int, layers: int, last: float) -> float:
    """Probability p of a layer, counted from 0: linear from 1 at the input to ``last`` in the last layer."""
    return 1 - (layer + 1) / layers * (1 - last)


def set_fields(model: nn.Module, fields: Mapping[str, Tensor]) -> None:
    """Copy a step's random numbers into a model with ShakeDrop or stochastic depth.

    Args:
        model: The model, also wrapped: DDP, torch.compile, ``Normalized``.
        fields: float32 tensors by name, as ``method.fields`` returns them: ``gate`` [L], ``alpha`` and ``beta`` [B, L],
            or ``chance`` [B, L]. An empty mapping changes nothing and fits every model.

    Raises:
        InputError: The model has no such branches, or another number of them.
    """
    if not fields:
        return
    for module in model.modules():
        if isinstance(module, Fields):
            module.set(fields)
            return
    raise InputError("`model` has no branches to drop: create it with shakedrop=True (or stochastic_depth).")


def branch_layers(model: nn.Module) -> int:
    """The number of residual branches with random factors.

    Args:
        model: The model, also wrapped.

    Returns:
        L, the ``layers`` of ``method.fields``; 0 for a model without ShakeDrop and stochastic depth.
    """
    return next((module.layers for module in model.modules() if isinstance(module, Fields)), 0)


def attach(model: nn.Module, blocks: Sequence[nn.Module], shakedrop: bool, stochastic_depth: float) -> None:
    """Set ``block.drop`` of the residual blocks, in order. All of them read one ``Fields``."""
    if shakedrop and stochastic_depth:
        raise InputError("`shakedrop` and `stochastic_depth` both scale the residual branches: choose one.")
    if not 0 <= stochastic_depth < 1:
        raise InputError(f"`stochastic_depth` is {stochastic_depth}: give a number of at least 0 and less than 1.")
    if not (shakedrop or stochastic_depth):
        return
    fields = Fields(len(blocks))
    for layer, block in enumerate(blocks):
        if shakedrop:
            block.drop = ShakeDrop(fields, layer, len(blocks))
        else:
            block.drop = StochasticDepth(fields, layer, len(blocks), 1 - stochastic_depth)


def _own(field: Tensor, layer: int, x: Tensor) -> Tensor:
    """A layer's column for a batch that may repeat the samples (ALP's clean and adversarial halves)."""
    column = field[:, layer]
    if len(x) == len(column):
        return column
    if len(x) % len(column):
        raise InputError(f"`fields` has {len(column)} samples, the batch {len(x)}: call set_fields for each batch.")
    return column.repeat(len(x) // len(column))
