"""Top-1 and top-5 error and loss on the validation set, after each epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from fastreg.kernels import augment
from fastreg.kernels.types import Plan
from fastreg.pipelines import Loader


@torch.no_grad()
def validate(
    model: nn.Module, loader: Loader, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype
) -> dict[str, float]:
    """Evaluate a model on the shards of all ranks, each image once.

    Args:
        model: takes normalized images [B, 3, h, w] and returns logits [B, C].
        loader: a loader of the validation set.
        mean: per channel, on the 0-1 scale.
        std: per channel, on the 0-1 scale.
        dtype: of the images and of autocast.

    Returns:
        ``val_top1_error`` in percent; from five classes on ``val_top5_error``; ``val_loss``, the mean cross-entropy.
    """
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
        wrong5, count5 = torch.zeros_like(wrong), torch.zeros_like(count)
        if logits.shape[1] >= 5:
            wrong5 = (logits.topk(5).indices != batch.labels[:, None]).all(1).sum()
            count5 = count
        added = torch.stack([value.double() for value in (wrong, loss, count, wrong5, count5)])
        sums = added if sums is None else sums + added
    model.train(training)
    if sums is None:
        sums = torch.zeros(5, dtype=torch.float64, device=next(model.parameters()).device)
    if dist.is_initialized():
        dist.all_reduce(sums)
    wrong_count, loss_sum, total, wrong5_count, total5 = sums.tolist()
    top5 = {"val_top5_error": 100 * wrong5_count / total5} if total5 else {}
    return {"val_top1_error": 100 * wrong_count / total, **top5, "val_loss": loss_sum / total}
