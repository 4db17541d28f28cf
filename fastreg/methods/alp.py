"""Adversarial logit pairing: each batch beside its FGSM examples, with a penalty on the distance of their logits.

    loss = CE over [x; x'] + weight mean((model(x) - model(x'))^2),  the mean over batch and classes

x' is that of adversarial.py. The cross-entropy is the mean over both, with the label smoothing of the loss.

Source: Kannan, Kurakin and Goodfellow, Adversarial logit pairing (arXiv 1803.06373), section 3.2, and its code for the
mean and the weight; Chun et al. 2020, section 3, for FGSM with epsilon 8/255.
Defaults: epsilon 8/255, weight 0.5; Adam.
Cost: by arithmetic 8/3 of a plain step (twice the batch, and its input gradient); not yet measured.
Example: ``fastreg train cifar100 --reg alp --ls 0.1``, ``methods.create("alp", weight=0.25)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastreg.kernels.types import Targets
from fastreg.methods.attack import EPSILON, craft, join_targets
from fastreg.methods.base import Component, MethodContext, number


def alp(context: MethodContext, *, epsilon: float = EPSILON, weight: float = 0.5) -> Component:
    epsilon, weight = number("epsilon", epsilon, 0), number("weight", weight, 0)

    def step(model: nn.Module, images: Tensor, targets: Targets, loss: Callable[..., Tensor], **keys: Any) -> Tensor:
        examples = craft(model, images, targets, epsilon)
        logits = model(torch.cat((images, examples)))
        clean, attacked = logits.float().chunk(2)
        return loss(logits, join_targets(targets, targets)) + weight * F.mse_loss(clean, attacked)

    return Component("alp", step=step, pixels=True, attacks=True, optimizer="adam")
