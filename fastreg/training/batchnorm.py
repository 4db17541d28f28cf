"""A step moves the running statistics of batch norm once: by their mean over all its micro-batches.

    r <- mean over micro-batches k of r_k,   r_k = (1 - momentum) r + momentum s_k

with s_k the statistics of micro-batch k, on any rank, and r the value on all ranks before the step. The statistics
therefore do not depend on how ranks and accumulation share a batch. A method that reads them in its step (an attack on
the model in evaluation mode) reads r in all micro-batches.

Between steps every rank may keep its own r_k: the update is linear, so a later mean has the same value. The mean must
be taken after each step if the step reads the statistics, otherwise before they are saved or used in a validation.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastreg.training.freeze import keeps_statistics


class BatchNormStatistics:
    """The buffers ``running_*`` of a model.

    One micro-batch on one rank costs nothing. Accumulation costs two small copies per micro-batch, ``share`` one
    all-reduce of all statistics as one vector (ResNet-50: 212 kB).

    Args:
        model: the model.
        micro_batches: micro-batches per step of this rank.
        world_size: number of ranks.
    """

    def __init__(self, model: nn.Module, micro_batches: int, world_size: int) -> None:
        frozen = {name for name, module in model.named_modules() if keeps_statistics(module)}
        buffers = [(*name.rpartition(".")[::2], buffer) for name, buffer in model.named_buffers()]
        named = [(name, buffer) for module, name, buffer in buffers if module not in frozen]
        self.own = [buffer for name, buffer in named if name.startswith("running_")]
        self.counts = [buffer for name, buffer in named if name == "num_batches_tracked"]
        self.micro_batches, self.world_size = (micro_batches, world_size) if self.own else (1, 1)
        self.before = [torch.empty_like(b) for b in self.own] if self.micro_batches > 1 else []
        self.total = [torch.zeros_like(b) for b in self.own] if self.micro_batches > 1 else []

    @torch.no_grad()
    def start(self, micro: int) -> None:
        """Before micro-batch ``micro`` (from 0): restore the statistics from before the step."""
        if self.micro_batches > 1:
            torch._foreach_copy_(*((self.own, self.before) if micro else (self.before, self.own)))

    @torch.no_grad()
    def end(self, micro: int) -> None:
        """After the backward pass of micro-batch ``micro``: add its statistics; the last one takes the mean."""
        if self.micro_batches > 1:
            torch._foreach_add_(self.total, self.own)
            if micro < self.micro_batches - 1:
                if self.counts:
                    torch._foreach_sub_(self.counts, 1)  # a step counts once
            else:
                torch._foreach_copy_(self.own, torch._foreach_div(self.total, self.micro_batches))
                torch._foreach_zero_(self.total)

    @torch.no_grad()
    def share(self) -> None:
        """Give every rank the mean over all ranks."""
        if self.world_size > 1:
            flat = torch.cat([b.flatten() for b in self.own])
            dist.all_reduce(flat)
            means: list[Tensor] = list((flat / self.world_size).split([b.numel() for b in self.own]))
            torch._foreach_copy_(self.own, [mean.view_as(b) for mean, b in zip(means, self.own)])
