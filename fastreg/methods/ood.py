"""OOD augmentation: one image of no class beside each training image, with uniform probabilities as its target.

    loss = CE(model(x), y) + weight KL(U || model(x_ood)),  KL(U || p) = -1/K sum_k log p_k - log K

The second term is the cross-entropy with label smoothing 1, less a constant. Both batches pass through the model as
one, so that batch norm normalizes them together, or with ``passes=2`` one after the other, as in Lee et al.'s code.
Each training sample draws its own OOD image by (sample, epoch), so pairs do not depend on the batch size or the number
of GPUs. ``ood_svhn`` draws SVHN's training images, ``ood_gan`` samples of a WGAN-GP generator that was trained on the
same data set before (models/wgan.py). With ``joint=True`` generator, critic and classifier are trained together
(methods/joint_gan.py).

Source: Lee et al., Training confidence-calibrated classifiers for detecting out-of-distribution samples (ICLR 2018),
equation 1, and its code for the weight; the two variants are Chun et al. 2020, section 3.
Defaults: weight 1, passes 1, joint False. ``--faithful``: passes 2; for ``ood_gan`` joint, and the weight 0.1 that Lee
et al. have on CIFAR-10.
Cost: by arithmetic 2 plain steps, and the generator's forward pass for ``ood_gan``; with ``joint`` 3 plain steps, and
six updates of the GAN; not yet measured.
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
from torch import Tensor, nn

from fastreg.errors import InputError
from fastreg.kernels import mixed_cross_entropy, philox
from fastreg.kernels.types import Targets
from fastreg.methods.base import Component, DrawKeys, MethodContext, number, ship
from fastreg.methods.joint_gan import JointGan, resized

_ORIGINAL_GAN = {"passes": 2, "joint": True, "weight": 0.1}  # Lee et al.'s code on CIFAR-10
Draw = Callable[[DrawKeys, torch.device], Tensor]  # -> float32 pixels in [0, 1], [B, 3, h, w] of any h, w


def ood_svhn(context: MethodContext, *, ood: Any = None, weight: float = 1.0, passes: int = 1) -> Component:
    """``ood``: images uint8 [N, h, w, 3], or the folder of SVHN. None: SVHN's default folder."""

    def open_pool() -> Draw:
        if isinstance(ood, np.ndarray | Tensor):
            return from_pool(context, ood)
        from fastreg.pipelines import open_dataset

        source = open_dataset("svhn", "train", ood)
        return from_pool(context, np.stack([source.read(i) for i in range(len(source))]))

    return beside("ood_svhn", open_pool, number("weight", weight, 0), passes)


def ood_gan(
    context: MethodContext,
    *,
    ood: Any = None,
    weight: float = 1.0,
    passes: int = 1,
    joint: bool = False,
    width: int = 128,
) -> Component:
    """``ood``: a generator (latents [B, z] to pixels in [-1, 1]), or its checkpoint. None: runs/gan/last.pt.

    ``joint`` trains a new GAN of ``width`` channels instead.
    """
    if joint:
        if ood is not None:
            raise InputError(f"`ood` is {ood}, but with `joint` the generator is trained in the run: leave `ood` out.")
        networks = JointGan(context.seed, int(number("width", width, 1)))
        component = beside("ood_gan", lambda: None, number("weight", weight, 0), passes, networks)
        return component._replace(networks=networks, original=_ORIGINAL_GAN)

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

    component = beside("ood_gan", open_generator, number("weight", weight, 0), passes)
    return component._replace(original=_ORIGINAL_GAN)


def beside(
    name: str, open_draw: Callable[[], Draw | None], weight: float, passes: int, gan: JointGan | None = None
) -> Component:
    """A component with the training step and ``prepare``. The first step calls ``prepare`` if it was not called before.

    ``passes`` 2 runs the model on each of the two batches by itself. The step updates ``gan``, which then draws the
    images instead of ``open_draw``.

    Without ``indices`` the samples are numbered by position in the batch; without ``step`` the calls are counted.
    """
    if passes not in (1, 2):
        raise InputError(f"`passes` is {passes!r}: give 1 (both batches together) or 2 (one after the other).")
    opened: list[Draw | None] = []
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
        keys = DrawKeys(samples, np.array([step]), step if epoch is None else epoch, (height, width))
        if gan is not None:
            outside = gan.update(model, images, uniform_divergence, weight)
        else:
            assert opened[0] is not None
            outside = opened[0](keys, images.device)
        outside = resized(outside, images)
        if passes == 2:
            inside, outside = model(images), model(outside)
        else:
            inside, outside = model(torch.cat((images, outside))).tensor_split((len(images),))
        return loss(inside, targets) + weight * uniform_divergence(outside)

    return Component(name, step=step, prepare=prepare, pixels=True, original={"passes": 2})


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
