"""Clean top-1 error and loss on the validation set, after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from fastreg.kernels import augment
from fastreg.kernels.types import Plan


@torch.no_grad()
def validate(model: nn.Module, loader: Any, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype):
    """``{"val_top1_error": percent, "val_loss": mean cross-entropy}`` over all ranks' shards, each sample once."""
    training = model.training
    model.eval()
    sums: torch.Tensor | None = None
    for batch in loader.batches():
        images = augment(batch.images, Plan(crop=batch.crop), mean=mean, std=std, dtype=dtype, size=loader.size)
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(images).float()
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        wrong = (logits.argmax(1) != batch.labels).sum()
        count = torch.full_like(loss, len(batch.labels))
        seen = torch.stack([wrong.double(), loss.double(), count.double()])
        sums = seen if sums is None else sums + seen
    model.train(training)
    if sums is None:
        sums = torch.zeros(3, dtype=torch.float64, device=next(model.parameters()).device)
    if dist.is_initialized():
        dist.all_reduce(sums)
    wrong_count, loss_sum, total = sums.tolist()
    return {"val_top1_error": 100 * wrong_count / total, "val_loss": loss_sum / total}
