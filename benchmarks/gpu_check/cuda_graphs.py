"""Calls captured into a CUDA graph and replayed on other inputs: what a captured training step relies on.

``replays()`` gives (name, make, tolerance); ``make(device)`` is what a call gives for its inputs with all samples moved
by one place: on a GPU captured with the inputs as they were, replayed with the moved ones copied over them; elsewhere
simply called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.benchmarks.images import image_batch
from fastreg.kernels import Plan, Targets, augment, color_jitter, fgsm_step, mixed_cross_entropy, scored_cross_entropy
from fastreg.kernels.attacks import start_in_ball
from fastreg.kernels.augmentation.registry import MEAN, STD, draw_plan

Tensors = tuple[Tensor, ...]
BATCH, SIDE, CLASSES = 16, 64, 1000
LEVEL = 1.01 / 255 / min(STD)  # what one level of a resampled pixel comes to
PLANS = {
    "mixup": ("flip", "partner", "lam"),
    "cutmix": ("flip", "partner", "box"),
    "all": ("flip", "noise", "partner", "lam", "box", "box_fill"),
    "crop mixup": ("crop", "flip", "partner", "lam"),
}


def replays() -> Iterator[tuple[str, Callable[[torch.device], Tensors], float]]:
    images = image_batch(BATCH, SIDE, torch.device("cpu"))
    plans = {name: _plan(fields) for name, fields in PLANS.items()}
    for name, (step, fields) in plans.items():
        yield f"graph augment {name}", _made(step, (images, *fields)), LEVEL if "crop" in name else 3e-6
    logits, *targets = _logits()
    weight = 0.1 * _normal(CLASSES, 3 * 8 * 8)
    colours = [0.5 + torch.rand(BATCH, generator=_generator(k)) for k in range(3)]
    pixels, keys = images.permute(0, 3, 1, 2) / 255, torch.arange(BATCH) * 7
    grad = _normal(BATCH, SIDE, SIDE, 3).permute(0, 3, 1, 2)  # in the layout of the pixels
    yield "graph loss", _made(_loss, (logits, *targets)), 1e-5
    yield "graph scored loss", _made(_scored, (logits, *targets)), 1e-5
    yield "graph fgsm_step", _made(_fgsm, (pixels, grad)), 1e-7
    yield "graph random start", _made(_start, (pixels, keys)), 1e-7
    yield "graph color_jitter", _made(_coloured, (images, *colours)), 1.0
    augmented, fields = plans["mixup"]
    yield "graph training step", _made(partial(_step, augmented), (images, *fields, *targets, weight)), 1e-5


def replayed(step: Callable[..., Tensors], first: Tensors, second: Tensors) -> Tensors:
    """What ``step`` gives for ``second`` after it was captured with ``first``."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles kernels and warms up autograd and cuDNN
        for _ in range(3):
            step(*first)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step(*first)
    for old, new in zip(first, second, strict=True):
        old.copy_(new)
    graph.replay()
    return tuple(t.clone() for t in out)


def _made(step: Callable[..., Tensors], inputs: Tensors) -> Callable[[torch.device], Tensors]:
    def make(device: torch.device) -> Tensors:
        moved = tuple(t.roll(1, 0).to(device) for t in inputs)
        if device.type != "cuda":
            return step(*moved)
        with torch.cuda.device(device):
            return replayed(step, tuple(t.to(device, copy=True) for t in inputs), moved)

    return make


def _plan(names: tuple[str, ...]) -> tuple[Callable[..., Tensors], Tensors]:
    """``augment`` as a function of images and the named fields, and those fields; the noise is a field too."""
    size = (48, 40) if "crop" in names else (SIDE, SIDE)
    plan = draw_plan(names, BATCH, *size, (SIDE, SIDE), "cpu")
    inputs = [getattr(plan, name) for name in names]
    inputs += [_normal(BATCH, *size, 3)] if "noise" in names else []
    given: dict[str, Any] = {"mean": MEAN, "std": STD, "dtype": torch.float32, "size": size}

    def step(images: Tensor, *fields: Tensor) -> Tensors:
        normal = fields[-1] if "noise" in names else None
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


def _coloured(images: Tensor, *factors: Tensor) -> Tensors:
    return (color_jitter(images, *factors).float(),)


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
