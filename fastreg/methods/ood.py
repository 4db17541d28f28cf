"""OOD augmentation: one image of no class beside each training image, with uniform probabilities as its target.

    loss = CE(model(x), y) + weight KL(U || model(x_ood)),  KL(U || p) = -1/K sum_k log p_k - log K

The second term is the cross-entropy with label smoothing 1, less a constant. Both batches pass through the model as
one. Each training sample draws its own OOD image by (sample, epoch), so pairs do not depend on the batch size or the
number of GPUs. ``ood_svhn`` draws SVHN's training images, ``ood_gan`` samples of a WGAN-GP generator that was trained
on the same data set before (models/wgan.py).

Source: Lee et al., Training confidence-calibrated classifiers for detecting out-of-distribution samples (ICLR 2018),
equation 1, and its code for the weight; the two variants are Chun et al. 2020, section 3.
Defaults: weight 1 (Lee et al. use 0.1 on CIFAR-10 with a GAN).
Cost: by arithmetic 2 plain steps, and the generator's forward pass for ``ood_gan``; not yet measured.
Example: ``fastreg train cifar100 --reg ood_svhn``, ``methods.create("ood_svhn", ood=images)``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastreg.errors import InputError
from fastreg.kernels import mixed_cross_entropy, philox
from fastreg.kernels.types import Targets
from fastreg.methods.base import Component, DrawKeys, MethodContext, number, ship

Draw = Callable[[DrawKeys, torch.device], Tensor]  # -> float32 pixels in [0, 1], [B, 3, h, w] of any h, w


def ood_svhn(context: MethodContext, *, ood: Any = None, weight: float = 1.0) -> Component:
    """``ood``: images uint8 [N, h, w, 3], or the folder of SVHN. None: SVHN's default folder."""

    def open_pool() -> Draw:
        if isinstance(ood, np.ndarray | Tensor):
            return from_pool(context, ood)
        from fastreg.pipelines import open_dataset

        source = open_dataset("svhn", "train", ood)
        return from_pool(context, np.stack([source.read(i) for i in range(len(source))]))

    return beside("ood_svhn", open_pool, number("weight", weight, 0))


def ood_gan(context: MethodContext, *, ood: Any = None, weight: float = 1.0) -> Component:
    """``ood``: a generator (latents [B, z] to pixels in [-1, 1]), or its checkpoint. None: runs/gan/last.pt."""

    def open_generator() -> Draw:
        if isinstance(ood, nn.Module):
            return from_generator(context, ood)
        path = Path("runs/gan/last.pt" if ood is None else ood)
        if ood is None and not path.is_file():
            raise InputError(
                "ood_gan needs a generator, and runs/gan/last.pt does not exist: run `fastreg train gan`, or give a "
                """checkpoint as the method's parameter `ood` (`reg_args` '{"ood": "PATH"}')."""
            )
        from fastreg.models.wgan import load_generator

        return from_generator(context, load_generator(path))

    return beside("ood_gan", open_generator, number("weight", weight, 0))


def beside(name: str, open_draw: Callable[[], Draw], weight: float) -> Component:
    """A component with the training step and with ``prepare``, which the first step calls if nobody did.

    Without ``indices`` the samples are numbered by position in the batch; without ``step`` the calls are counted.
    """
    opened: list[Draw] = []
    calls = itertools.count()

    def prepare() -> None:
        if not opened:
            opened.append(open_draw())

    def step(
        model: nn.Module,
        images: Tensor,
        targets: Targets,
        loss: Callable[..., Tensor],
        *,
        indices: Tensor | None = None,
        step: int | None = None,
        epoch: int | None = None,
    ) -> Tensor:
        prepare()
        samples = np.arange(len(images)) if indices is None else indices.cpu().numpy()
        step = next(calls) if step is None else step
        height, width = images.shape[2:]
        keys = DrawKeys(samples, step, step if epoch is None else epoch, (height, width))
        outside = opened[0](keys, images.device)
        if outside.shape[2:] != images.shape[2:]:
            outside = F.interpolate(outside, images.shape[2:], mode="bilinear", antialias=True)
        logits = model(torch.cat((images, outside)))
        inside, outside = logits.tensor_split((len(images),))
        return loss(inside, targets) + weight * uniform_divergence(outside)

    return Component(name, step=step, prepare=prepare, pixels=True)


def uniform_divergence(logits: Tensor) -> Tensor:
    """KL(uniform || softmax(logits)), float32, mean over the batch."""
    label = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return mixed_cross_entropy(logits, label, label_smoothing=1.0) - math.log(logits.shape[1])


def from_pool(context: MethodContext, images: np.ndarray | Tensor) -> Draw:
    """Draws from images uint8 [N, h, w, 3], which move to the device with the first draw."""
    pool = torch.as_tensor(images)
    if pool.dtype != torch.uint8 or pool.ndim != 4 or pool.shape[3] != 3 or len(pool) == 0:
        raise InputError(f"`ood` is {pool.dtype} {list(pool.shape)}: give images uint8 [N, h, w, 3], N 1 or more.")

    def draw(keys: DrawKeys, device: torch.device) -> Tensor:
        nonlocal pool
        pool = pool.to(device)
        words = philox.words(context.seed, 0, keys.samples, keys.epoch, "ood_choice")[:, 0]
        choice = ship({"choice": philox.integers(words, len(pool))}, device)["choice"]
        return pool[choice].permute(0, 3, 1, 2).float() / 255

    return draw


def from_generator(context: MethodContext, generator: nn.Module) -> Draw:
    """Draws samples of a generator in evaluation mode; ``generator.latent`` is the length of z."""
    generator = generator.eval().requires_grad_(False)
    latent = int(generator.latent)  # type: ignore[arg-type]

    def draw(keys: DrawKeys, device: torch.device) -> Tensor:
        generator.to(device)
        z = philox.field(philox.normal, context.seed, keys.samples, latent, keys.epoch, "gan_latent")
        with torch.no_grad():
            return generator(ship({"z": z}, device)["z"]).float() / 2 + 0.5

    return draw
