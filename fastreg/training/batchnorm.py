"""A step moves the running statistics of batch norm once: by their mean over all its micro-batches.

    r <- mean over micro-batches k of r_k,   r_k = (1 - momentum) r + momentum s_k

with s_k what the norm saw of micro-batch k, on whatever process, and r what all processes held before the step. So the
statistics do not depend on how processes and accumulation share a batch, nor does a method that reads them in its step
(an attack on the model in evaluation mode): the step's attacks all read r.

Between steps every process may go on with its own r_k: the law is linear, so their mean taken later is the same. It
must be taken after each step where the step itself reads them, else before they are saved or validated.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class BatchNormStatistics:
    """The buffers ``running_*`` of a model that takes ``parts`` micro-batches a step in each of ``world`` processes.

    Costs nothing for one micro-batch in one process; accumulation costs two small copies per micro-batch, ``share``
    one all-reduce of all of them as one vector (ResNet-50: 212 kB).
    """

    def __init__(self, model: nn.Module, parts: int, world: int):
        named = [(name.rpartition(".")[2], buffer) for name, buffer in model.named_buffers()]
        self.own = [buffer for name, buffer in named if name.startswith("running_")]
        self.counts = [buffer for name, buffer in named if name == "num_batches_tracked"]
        self.parts, self.world = (parts, world) if self.own else (1, 1)
        self.before = [torch.empty_like(b) for b in self.own] if self.parts > 1 else []
        self.total = [torch.zeros_like(b) for b in self.own] if self.parts > 1 else []

    @torch.no_grad()
    def start(self, part: int) -> None:
        """Before micro-batch ``part`` (from 0): the statistics as the step found them."""
        if self.parts > 1:
            torch._foreach_copy_(*((self.own, self.before) if part else (self.before, self.own)))

    @torch.no_grad()
    def end(self, part: int) -> None:
        """After its backward pass."""
        if self.parts > 1:
            torch._foreach_add_(self.total, self.own)
            if part < self.parts - 1:
                for count in self.counts:
                    count -= 1  # a step counts once
            else:
                torch._foreach_copy_(self.own, torch._foreach_div(self.total, self.parts))
                torch._foreach_zero_(self.total)

    @torch.no_grad()
    def share(self) -> None:
        """Give every process the mean over all of them."""
        if self.world > 1:
            flat = torch.cat([b.flatten() for b in self.own])
            dist.all_reduce(flat)
            means: list[Tensor] = list((flat / self.world).split([b.numel() for b in self.own]))
            torch._foreach_copy_(self.own, [mean.view_as(b) for mean, b in zip(means, self.own)])
