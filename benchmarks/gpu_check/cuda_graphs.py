"""Calls captured into a CUDA graph and replayed on other inputs, as in a captured training step.

A check computes a call on inputs whose samples are shifted by one. On a GPU the call is captured with the original
inputs and replayed after the shifted inputs are copied over them. On a CPU the call runs on the shifted inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.benchmarks.gpu_check.check import Check, Close, Tensors
from fastreg.benchmarks.images import image_batch
from fastreg.cuda_graphs import capture
from fastreg.kernels import (
    AUTO_AUGMENT_OPERATIONS,
    Plan,
    Targets,
    augment,
    auto_augment,
    color_jitter,
    fgsm_step,
    mixed_cross_entropy,
    scored_cross_entropy,
)
from fastreg.kernels.attacks import start_in_ball
from fastreg.kernels.augmentation.registry import MEAN, STD, draw_plan

BATCH, SIDE, CLASSES = 16, 64, 1000
PLANS = {
    "mixup": ("flip", "partner", "lam"),
    "cutmix": ("flip", "partner", "box"),
    "all": ("flip", "noise", "partner", "lam", "box", "box_fill"),
    "erased cutmix": ("flip", "partner", "box", "erase", "erase_noise"),
    "crop mixup": ("crop", "flip", "partner", "lam"),
}


def graph_checks() -> Iterator[Check]:
    """Checks of every operation that a training step captures, and of a whole step."""
    for name in PLANS:
        yield _check(f"augment {name}", partial(_augment_inputs, name), 3e-6)
    yield _check("loss", lambda: (_loss, _logits()), 1e-5)
    yield _check("scored loss", lambda: (_scored, _logits()), 1e-5)
    yield _check("fgsm_step", lambda: (_fgsm, (_pixels(), _gradient())), 1e-7)
    yield _check("random start", lambda: (_start, (_pixels(), torch.arange(BATCH) * 7)), 1e-7)
    yield _check("color_jitter", _color_inputs, 1.0)
    yield _check("auto_augment", _automatic_inputs, 0.0)
    yield _check("training step", _step_inputs, 1e-5)


def replay_on(step: Callable[..., Tensors], first: Tensors, second: Tensors) -> Tensors:
    """Capture ``step(*first)``, copy ``second`` over ``first``, replay, and return copies of the outputs."""
    replay, out = capture(step, *first)
    for old, new in zip(first, second, strict=True):
        old.copy_(new)
    replay()
    return tuple(t.clone() for t in out)


Inputs = Callable[[], tuple[Callable[..., Tensors], Tensors]]


def _check(name: str, inputs: Inputs, tolerance: float) -> Check:
    def make(device: torch.device) -> Tensors:
        step, tensors = inputs()
        moved = tuple(t.roll(1, 0).to(device) for t in tensors)
        if device.type != "cuda":
            return step(*moved)
        return replay_on(step, tuple(t.to(device, copy=True) for t in tensors), moved)

    return Check(f"graph {name}", make, Close(tolerance, relative=1e-5))


def _augment_inputs(name: str) -> tuple[Callable[..., Tensors], Tensors]:
    step, fields = _plan(PLANS[name])
    return step, (_images(), *fields)


def _color_inputs() -> tuple[Callable[..., Tensors], Tensors]:
    factors = (0.5 + torch.rand(BATCH, generator=_generator(k)) for k in range(3))
    return _colored, (_images(), *factors)


def _automatic_inputs() -> tuple[Callable[..., Tensors], Tensors]:
    """Every operation in one of two slots."""
    operations = torch.arange(2 * BATCH).view(2, BATCH).T % len(AUTO_AUGMENT_OPERATIONS)
    return _automatic, (_images(), operations, 8 * torch.rand((BATCH, 2), generator=_generator(5)) - 4)


def _step_inputs() -> tuple[Callable[..., Tensors], Tensors]:
    augmented, fields = _plan(PLANS["mixup"])
    _, *targets = _logits()
    return partial(_step, augmented), (_images(), *fields, *targets, 0.1 * _normal(CLASSES, 3 * 8 * 8))


def _images() -> Tensor:
    return image_batch(BATCH, SIDE, torch.device("cpu"))


def _pixels() -> Tensor:
    return _images().permute(0, 3, 1, 2) / 255


def _gradient() -> Tensor:
    return _normal(BATCH, SIDE, SIDE, 3).permute(0, 3, 1, 2)  # in the layout of the pixels


def _plan(names: tuple[str, ...]) -> tuple[Callable[..., Tensors], Tensors]:
    """``augment`` as a function of images and the named fields, and those fields; the noise is a field too."""
    size = (48, 40) if "crop" in names else (SIDE, SIDE)
    plan = draw_plan(names, BATCH, *size, (SIDE, SIDE), "cpu")
    inputs = [getattr(plan, name) for name in names]
    noisy = "noise" in names or "erase_noise" in names
    inputs += [_normal(BATCH, *size, 3)] if noisy else []
    given: dict[str, Any] = {"mean": MEAN, "std": STD, "dtype": torch.float32, "size": size}

    def step(images: Tensor, *fields: Tensor) -> Tensors:
        normal = fields[-1] if noisy else None
        return (augment(images, Plan(**dict(zip(names, fields))), normal=normal, **given),)

    return step, tuple(inputs)


def _logits() -> Tensors:
    a, b = torch.randint(CLASSES, (2, BATCH), generator=_generator(1))
    b[::3] = a[::3]
    return 4 * _normal(BATCH, CLASSES), a, b, torch.rand(BATCH, generator=_generator(2))


def _loss(logits: Tensor, a: Tensor, b: Tensor, lam: Tensor) -> Tensors:
    z = logits.detach().requires_grad_()
    loss = mixed_cross_entropy(z, Targets(a, b, lam), 0.1)
    return loss.detach(), *torch.autograd.grad(loss, z)


def _scored(logits: Tensor, a: Tensor, b: Tensor, lam: Tensor) -> Tensors:
    return scored_cross_entropy(logits, Targets(a, b, lam), 0.1)


def _fgsm(images: Tensor, grad: Tensor) -> Tensors:
    return (fgsm_step(images, grad, 8 / 255),)


def _start(images: Tensor, keys: Tensor) -> Tensors:
    return (start_in_ball(images, 8 / 255, 3, keys),)


def _colored(images: Tensor, *factors: Tensor) -> Tensors:
    return (color_jitter(images, *factors).float(),)


def _automatic(images: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensors:
    return (auto_augment(images, operations, magnitudes, fill=(9, 200, 31)).float(),)


def _step(augmented: Callable[..., Tensors], images: Tensor, *rest: Tensor) -> Tensors:
    """From images to the gradient of a linear model of their mean patch."""
    *fields, a, b, lam, weight = rest
    w = weight.detach().requires_grad_()
    patch = F.unfold(augmented(images, *fields)[0], 8, stride=8).mean(2)
    loss = mixed_cross_entropy(patch @ w.T, Targets(a, b, lam), 0.1)
    return loss.detach(), *torch.autograd.grad(loss, w)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=_generator(0))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
