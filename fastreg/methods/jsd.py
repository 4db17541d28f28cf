"""The Jensen-Shannon divergence of a sample's views, and the training step of AugMix that adds it to the loss.

    p_v = softmax(z_v), v = 1 ... V,   M = max(1/V sum_v p_v, 1e-7),   JSD = 1/V sum_v sum_c p_vc (log p_vc - log M_c)
    loss = CE(z_1, y) + weight JSD,      the mean over the batch

Source: Hendrycks et al., AugMix (ICLR 2020), section 3, and its code for the bound on M; timm's JsdCrossEntropy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastreg.errors import InputError
from fastreg.kernels.types import Targets

SPLITS = 3  # the image itself and two augmented views
_LEAST = 1e-7  # bound on the mixture, so that its logarithm is finite


class _Divergence(torch.autograd.Function):
    """Saves the gradient of the logits, in their dtype, and no probabilities."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, views: int) -> Tensor:
        log_p = logits.float().log_softmax(1).view(views, -1, logits.shape[1])
        p = log_p.exp()
        mixture = p.mean(0)
        # log p - log M; p (log p - log M) is 0 at p = 0
        ratio = log_p.clamp_(min=-1e4).sub_(mixture.clamp(min=_LEAST).log_())
        scale = 1 / (views * max(log_p.shape[1], 1))
        loss = (p * ratio).sum() * scale
        # d JSD / d p_vc is the ratio where M is free (its derivative cancels that of p log p), else the ratio + 1
        slope = ratio.add_((mixture < _LEAST).float())
        slope.sub_((p * slope).sum(2, keepdim=True)).mul_(p).mul_(scale)
        ctx.save_for_backward(slope.view_as(logits).to(logits.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return (slope * gradient[0]).to(slope.dtype), None


def jensen_shannon(logits: Tensor, views: int) -> Tensor:
    """The Jensen-Shannon divergence between the views of each sample, mean over the batch.

    Args:
        logits: float [views * B, C], view after view.
        views: Number of views, 2 or more.

    Returns:
        float32 [], in nats; differentiable, with a gradient of the logits' dtype.

    Raises:
        InputError: ``views`` does not divide the logits' rows.
    """
    if views < 2 or len(logits) % views:
        raise InputError(f"`logits` has {len(logits)} rows for {views} views: give equally many of each view.")
    with torch.autocast(logits.device.type, enabled=False):
        return _Divergence.apply(logits, views)


def jsd_step(weight: float) -> Callable[..., Tensor]:
    """``Method.step`` for images of ``SPLITS`` views: the loss of the first, plus ``weight`` times the divergence."""

    def step(model: nn.Module, images: Tensor, targets: Targets, loss: Callable[..., Tensor], **keys: Any) -> Tensor:
        count = len(targets.a)
        if len(images) != SPLITS * count:
            raise InputError(
                f"`images` has {len(images)} images for {count} targets: the step of a method with `jsd` takes "
                f"{SPLITS} views of each, as `augment` makes them of the method's plan."
            )
        logits = model(images)
        return loss(logits[:count], targets) + weight * jensen_shannon(logits, SPLITS)

    return step
