"""Every method's step on the meta device, which has shapes and no memory: a tensor left on the CPU is an error.

Launches of fastreg's own kernels are replaced by their result's shape, and check the device of their arguments.
"""

from __future__ import annotations

import contextlib

import pytest
import torch

from fastreg import methods
from fastreg.distributed import World
from fastreg.kernels import Batch
from fastreg.models.wgan import Generator
from fastreg.training import color_jitter, loss, train_step
from fastreg.training.train_step import TrainStep
from tests.fastreg.training import tiny_runs as tiny

META = torch.device("meta")
REGS = [*methods.METHODS, "mixup+cutmix", "cutmix+shakedrop+adversarial", "mixup+alp", "mixup+ood_svhn"]
OOD = {"ood_svhn": lambda: torch.zeros(5, 32, 32, 3, dtype=torch.uint8), "ood_gan": lambda: Generator(6, 8)}


@pytest.fixture
def launches(quick) -> list[str]:
    """Names of the launches."""
    names: list[str] = []

    def augment(images, plan, *, size, dtype, **options):
        assert all(field is None or field.device == META for field in (images, *plan))
        names.append("augment")
        views = 1 if plan.operations is None or plan.operations.ndim < 4 else 1 + plan.operations.shape[1]
        return torch.empty(views * len(images), size, size, 3, dtype=dtype, device=META).permute(0, 3, 1, 2)

    def jitter(images, **factors):
        assert all(factor.device == META for factor in (images, *factors.values()))
        names.append("color_jitter")
        return images

    def cross_entropy(logits, targets, *smoothing, **options):
        fields = targets if isinstance(targets, tuple) else (targets,)
        assert all(field.device == META for field in (logits, *fields))
        return logits.mean()

    def attack(model, images, targets, epsilon):
        pixels = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(pixels), targets), pixels)
        return images + epsilon * gradient.sign()

    quick.setattr(torch, "autocast", lambda *given, **options: contextlib.nullcontext())  # has no meta device
    quick.setattr(train_step, "augment", augment)
    quick.setattr(color_jitter, "augment", augment)
    quick.setattr(methods.attack, "fgsm_attack", attack)
    for module in (loss, methods.ood):
        quick.setattr(module, "mixed_cross_entropy", cross_entropy)
    quick.setattr(color_jitter, "color_jitter", jitter)
    return names


@pytest.mark.parametrize("reg", REGS)
def test_everything_that_a_step_needs_is_on_its_device(reg, launches, data, tmp_path):
    images = next((make() for name, make in OOD.items() if name in reg), None)
    own = {} if images is None else {"ood": images}
    config = tiny.settings(reg, tmp_path, data, reg_args=own, grad_accum_steps=2, clip_grad=1.0)
    step = TrainStep(config, 4, *tiny.STATISTICS, World(0, 1, META))
    images = torch.zeros(4, 40, 40, 3, dtype=torch.uint8, device=META)
    labels = torch.zeros(4, dtype=torch.int64, device=META)
    crop = torch.zeros(4, 4, device=META)
    for micro in range(2):
        loss = step.forward_backward(Batch(images, labels, torch.arange(4), crop), 0, micro, 16)
        assert loss.device == META
    assert all(p.grad is not None and p.grad.device == META for p in step.model.parameters())
    step.update(0, 8)
    assert launches == ["augment", "color_jitter", "augment"] * 2
    tensors = [*step.net.parameters(), *step.net.buffers(), *step.ema.parameters(), *step.ema.buffers()]
    assert {tensor.device for tensor in tensors} == {META}
