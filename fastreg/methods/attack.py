"""FGSM examples of the model in training, for adversarial training and logit pairing.

The attack reads batch norm's running statistics. All attacks of a step read the values at its start: the mean over all
micro-batches of the previous step, of all ranks (training/batchnorm.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from fastreg.kernels.attacks import fgsm_attack
from fastreg.kernels.types import Targets

EPSILON = 8 / 255


def craft(model: nn.Module, images: Tensor, targets: Targets, epsilon: float) -> Tensor:
    """FGSM examples, float32 pixels, by the plain cross-entropy of the model in evaluation mode."""
    with _probing(model):
        return fgsm_attack(model, images, targets, epsilon)


def take(targets: Targets, rows: slice) -> Targets:
    return Targets(*(field[rows] for field in targets))


def join_targets(one: Targets, two: Targets) -> Targets:
    return Targets(*(torch.cat(pair) for pair in zip(one, two)))


@contextmanager
def without_gradient_sync(model: nn.Module) -> Iterator[None]:
    """No gradient synchronization in DDP, for a backward pass that stops before the parameters."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.parallel.DistributedDataParallel):
                stack.enter_context(module.no_sync())
        yield


@contextmanager
def _probing(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no gradient synchronization in DDP; restores the mode of every module."""
    training = [module for module in model.modules() if module.training]
    with without_gradient_sync(model):
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
