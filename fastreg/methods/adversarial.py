"""Adversarial training: half of each batch is replaced by FGSM examples of itself.

    x' = clip(x + epsilon sign(grad_x CE(model(x), y)), 0, 1),  loss = mean over the clean and the adversarial half

The attack uses the model in evaluation mode and the cross-entropy of the label without smoothing. The step trains on
both halves in one batch, with the label smoothing of the loss.

Source: Chun et al. 2020, section 3 (FGSM, clean and adversarial at the same ratio, Adam), after Kurakin et al.,
Adversarial machine learning at scale (ICLR 2017), section 3, with equal weights.
Defaults: epsilon 8/255; Adam.
Cost: by arithmetic 4/3 of a plain step (forward and input gradient of half a batch); not yet measured.
Example: ``fastreg train cifar100 --reg adversarial --ls 0.1``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastreg.kernels.types import Targets
from fastreg.methods.attack import EPSILON, craft, take
from fastreg.methods.base import Component, MethodContext, number


def adversarial(context: MethodContext, *, epsilon: float = EPSILON) -> Component:
    epsilon = number("epsilon", epsilon, 0)

    def step(model: nn.Module, images: Tensor, targets: Targets, loss: Callable[..., Tensor], **keys: Any) -> Tensor:
        clean = slice(0, len(images) // 2)
        attacked = slice(len(images) // 2, None)
        examples = craft(model, images[attacked], take(targets, attacked), epsilon)
        return loss(model(torch.cat((images[clean], examples))), targets)

    return Component("adversarial", step=step, pixels=True, attacks=True, optimizer="adam")
