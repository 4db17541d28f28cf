"""Two real training steps of every method in every mode of the training step, against float32 on the CPU.

The second step's loss depends on the first step's update, so forward pass, backward pass, optimizer and scaler are all
in the result. Draws are keyed by sample and step, so both devices train on the same plans.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from fastreg.benchmarks.gpu_check.check import CPU, Check, Close, Tensors
from fastreg.distributed import World
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD, Batch
from fastreg.methods import METHODS
from fastreg.models.wgan import Generator
from fastreg.training import make_config
from fastreg.training.setup import training_switches
from fastreg.training.train_step import TrainStep

BATCH, SIDE, CLASSES, STEPS = 8, 16, 10, 2
FP16_SCALE = 128.0
REGS = (*METHODS, "mixup+cutmix", "cutmix+shakedrop")
# settings by mode; the reference of a mode has the same settings in float32
MODES: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "fp16 with scaler": {"precision": "fp16"},
    "channels first": {"precision": "bf16", "channels_last": False},
    "accumulation": {"precision": "bf16", "grad_accum_steps": 2},
    "average": {"precision": "bf16", "model_ema_decay": 0.9},
}
COMPILED = ("none", "mixup", "adversarial")  # each costs a minute of one core
# fp32 is TF32 on a GPU. An attack takes the sign of gradients, of which bf16 flips some: its second loss moves most.
CLOSE = {"fp32": Close(0.05, relative=0.05), "half": Close(0.1, relative=0.1)}


def train_step_checks(quick: bool = False) -> Iterator[Check]:
    """All methods in all modes; methods of ``COMPILED`` through torch.compile unless ``quick``."""
    for reg in REGS:
        for mode, settings in MODES.items():
            shared = {key: value for key, value in settings.items() if key in ("grad_accum_steps", "model_ema_decay")}
            yield _check(reg, mode, settings, shared)
    for reg in () if quick else COMPILED:
        yield _check(reg, "compiled", {"precision": "bf16", "torchcompile": "default"}, {})


def _check(reg: str, mode: str, settings: dict[str, Any], shared: dict[str, Any]) -> Check:
    return Check(
        f"step {reg}, {mode}",
        partial(losses, reg, settings),
        CLOSE["fp32" if settings["precision"] == "fp32" else "half"],
        reference=partial(losses, reg, {"precision": "fp32", **shared}, CPU),
        group=f"step {reg} {sorted(shared)}",
        repeats=False,  # sums in cuDNN's weight gradients have no fixed order
    )


def losses(reg: str, settings: dict[str, Any], device: torch.device) -> Tensors:
    """Train ``STEPS`` steps.

    Returns:
        ``(losses, change)``: the losses of all micro-batches, float64 [n]; the mean absolute change of the weights, or
        of their moving average, in units of 1e-3, a float64 scalar.
    """
    if device.type == "cpu":
        settings = {**settings, "precision": "fp32"}
    own = {"ood_svhn": {"ood": _pool()}, "ood_gan": {"ood": _generator()}}.get(reg, {})
    settings = {"torchcompile": "off", **settings}
    config, _ = make_config(
        "cifar100", gpu=device.type == "cuda", model="resnet18", reg=reg, reg_args=own, size=SIDE, batch_size=BATCH,
        global_batch=BATCH, lr=0.01, warmup=0.0, device=str(device), seed=3, **settings,
    )  # fmt: skip
    found = []
    with training_switches(config, device):
        train_step = TrainStep(config, CLASSES, IMAGENET_MEAN, IMAGENET_STD, World(0, 1, device))
        train_step.net.train()
        if scaler := train_step.scaler.state_dict():  # the default scale overflows, and both steps would be skipped
            train_step.scaler.load_state_dict({**scaler, "scale": FP16_SCALE})
        model = train_step.model if train_step.ema is None else train_step.ema
        before = [p.detach().clone() for p in model.parameters()]
        for step in range(STEPS):
            for micro in range(config.grad_accum_steps):
                loss = train_step.forward_backward(_batch(micro, device), step, micro, SIDE)
                found.append(loss.detach().double())
            train_step.update(step, 100)
        moved = [(p.detach() - old).double().abs().mean() for p, old in zip(model.parameters(), before)]
    return torch.stack(found).cpu(), 1e3 * torch.stack(moved).mean().cpu()


def _batch(micro: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(micro)
    images = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    return Batch(images.to(device), labels.to(device), torch.arange(BATCH) + BATCH * micro, None)


def _pool() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3), dtype=np.uint8)


def _generator() -> Generator:
    torch.manual_seed(0)
    return Generator(6, 8)
