"""What happens to a residual branch before it is added: ShakeDrop, or stochastic depth.

Both multiply the branch by one number per sample, and its gradient by another. The numbers come from the method
(``methods.create("shakedrop").fields``) by :func:`set_fields`, so a run repeats bit for bit on any number of GPUs. A
loop that never sets them gets numbers from torch's default generator, as with any dropout layer.

Sources: Yamada et al., ShakeDrop regularization for deep residual learning (arXiv 1802.02375), section 3;
Huang et al., Deep networks with stochastic depth (ECCV 2016), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fastreg.errors import InputError


class Fields(nn.Module):
    """The current step's random numbers of all branches of a model, which has one of these.

    ``gate`` [L], ``alpha`` and ``beta`` [B, L] for ShakeDrop, ``chance`` [B, L] (uniform) for stochastic depth; all
    float32. They are plain tensors, not registered buffers: DDP would broadcast rank 0's samples to every rank, moving
    averages would average them, and ``model.half()`` would round them.
    """

    gate: Tensor | None = None
    alpha: Tensor | None = None
    beta: Tensor | None = None
    chance: Tensor | None = None

    def __init__(self, layers: int):
        super().__init__()
        self.layers = layers

    def set(self, values: Mapping[str, Tensor]) -> None:
        """Copy, in place where shapes agree (a captured CUDA graph then sees the new numbers)."""
        for name, value in values.items():
            if value.shape[-1] != self.layers:
                raise InputError(
                    f"the field {name!r} is of {value.shape[-1]} layers, the model has {self.layers} that drop: "
                    "draw it with layers=branch_layers(model)."
                )
            own = getattr(self, name)
            if own is not None and own.shape == value.shape and own.device == value.device:
                own.copy_(value, non_blocking=True)
            else:
                setattr(self, name, value.clone())


class Scale(torch.autograd.Function):
    """``x * forward`` whose gradient is ``gradient * backward``; x [B, ...], both factors [B]. Saves no activation."""

    @staticmethod
    def forward(ctx, x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.ndim - 1)
        ctx.save_for_backward(backward.to(x.dtype).view(shape))
        return x * forward.to(x.dtype).view(shape)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (backward,) = ctx.saved_tensors
        return gradient * backward, None, None


class ShakeDrop(nn.Module):
    """Training: branch times b + a - b a, gradient times b + beta - b beta; evaluation: times the expectation, p.

    b ~ Bernoulli(p), one per layer and batch; a ~ U(-1, 1) and beta ~ U(0, 1), one each per layer and sample.
    ``layer`` counts from 0 among the model's ``layers``: p = 1 - (layer + 1) / layers * (1 - last).
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
    """Training: branch times keep / p, keep ~ Bernoulli(p) per layer and sample; evaluation: the branch as it is."""

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
    """p of a layer (from 0): linear from 1 at the input to ``last`` in the last layer."""
    return 1 - (layer + 1) / layers * (1 - last)


def set_fields(model: nn.Module, fields: Mapping[str, Tensor]) -> None:
    """Give the model this step's random numbers (``method.fields(indices, step, layers)``).

    ``model`` may be wrapped (DDP, compiled, Normalized). An empty ``fields`` is fine for any model. Raises InputError
    if the model has no such branches.
    """
    if not fields:
        return
    for module in model.modules():
        if isinstance(module, Fields):
            module.set(fields)
            return
    raise InputError("this model has no branches to drop: create it with shakedrop=True (or stochastic_depth).")


def branch_layers(model: nn.Module) -> int:
    """L, the number of branches that take random fields; 0 for a model without any."""
    return next((module.layers for module in model.modules() if isinstance(module, Fields)), 0)


def attach(model: nn.Module, blocks: Sequence[nn.Module], shakedrop: bool, stochastic_depth: float) -> None:
    """Set ``block.drop`` of every residual block, in order, all reading one ``Fields``."""
    if shakedrop and stochastic_depth:
        raise InputError("ShakeDrop and stochastic depth both scale the residual branch: choose one.")
    if not 0 <= stochastic_depth < 1:
        raise InputError(f"stochastic_depth must be at least 0 and less than 1, but is {stochastic_depth}.")
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
        raise InputError(f"the fields are of {len(column)} samples, the batch has {len(x)}: set them for each batch.")
    return column.repeat(len(x) // len(column))
