"""The GAN of ``ood_gan`` with ``joint=True``, trained together with the classifier: Lee et al.'s joint confidence loss.

    critic      mean D(G(z)) - mean D(x) + 10 mean (|grad D| - 1)^2          5 updates
    generator   -mean D(G(z)) + weight KL(U || model(G(z)))                  1 update
    classifier  CE(model(x), y) + weight KL(U || model(G(z)))                the training step

All three are updated on each micro-batch, in this order, as in Lee et al.'s code. Their discriminator's loss is that of
the first GAN; Chun et al. name WGAN-GP instead, and give no number of critic updates and no rate. Those here are of
WGAN-GP's code: Adam with rate 2e-4 and betas 0 and 0.9, without decay. The training images are real images, augmented.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from fastreg.methods.attack import without_gradient_sync
from fastreg.models.wgan import SIDE, Critic, Generator, critic_loss, dequantise, generator_loss

CRITIC_STEPS = 5
RATE, BETAS = 2e-4, (0.0, 0.9)


class JointGan:
    """Generator, critic and their optimizers, as the ``networks`` of a method.

    Random numbers come from torch's generators, which a training step seeds for each micro-batch. Ranks average their
    gradients.

    Args:
        seed: of the initial weights.
        width: channels of both networks.
        latent: length of the generator's input.
    """

    def __init__(self, seed: int, width: int = 128, latent: int = 128) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator, self.critic = Generator(latent, width), Critic(width)
        self.optimizers: tuple[torch.optim.Optimizer, ...] = ()

    def start(self, device: torch.device) -> None:
        """Move the networks to ``device`` before the first step, and make their optimizers."""
        if not self.optimizers:
            networks = (self.generator.to(device), self.critic.to(device))
            self.optimizers = tuple(torch.optim.Adam(n.parameters(), lr=RATE, betas=BETAS) for n in networks)

    def state_dict(self) -> dict[str, Any]:
        """The content of a checkpoint; :meth:`start` comes before."""
        optimizers = {f"optimizer_{i}": optimizer.state_dict() for i, optimizer in enumerate(self.optimizers)}
        return {"generator": self.generator.state_dict(), "critic": self.critic.state_dict(), **optimizers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`; :meth:`start` comes before."""
        self.generator.load_state_dict(state["generator"])
        self.critic.load_state_dict(state["critic"])
        for i, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state[f"optimizer_{i}"])

    def update(self, model: nn.Module, pixels: Tensor, divergence: Any, weight: float) -> Tensor:
        """Update critic and generator, and draw images of no class for the classifier.

        Args:
            model: the classifier, of pixels in [0, 1]; its gradients stay as they are.
            pixels: float32 [B, 3, h, w] in [0, 1], training images.
            divergence: function from the classifier's logits to KL(U || p).
            weight: of the divergence in the generator's loss.

        Returns:
            float32 [B, 3, 32, 32] in [0, 1], without a graph.
        """
        self.start(pixels.device)
        for_generator, for_critic = self.optimizers
        count = len(pixels)
        images = pixels if pixels.shape[2:] == (SIDE, SIDE) else F.interpolate(pixels, (SIDE, SIDE), mode="area")
        levels = (255 * images).permute(0, 2, 3, 1)
        with torch.autocast(pixels.device.type, enabled=False):
            for _ in range(CRITIC_STEPS):
                real = dequantise(levels, torch.rand_like(images))
                with torch.no_grad():
                    fake = self._fake(count, pixels.device)
                mix = torch.rand(count, device=pixels.device)
                _step(for_critic, critic_loss(self.critic, real, fake, mix), self.critic)
            fake = self._fake(count, pixels.device)
            with _frozen(self.critic):
                adversarial = generator_loss(self.critic, fake)
        with without_gradient_sync(model):
            confident = divergence(model(resized(fake / 2 + 0.5, pixels)))
            _step(for_generator, adversarial + weight * confident, self.generator)
        with torch.no_grad():
            return self._fake(count, pixels.device) / 2 + 0.5

    def _fake(self, count: int, device: torch.device) -> Tensor:
        return self.generator(torch.randn(count, self.generator.latent, device=device))


def resized(images: Tensor, like: Tensor) -> Tensor:
    """Images of the size of ``like``."""
    if images.shape[2:] == like.shape[2:]:
        return images
    return F.interpolate(images, like.shape[2:], mode="bilinear", antialias=True)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, network: nn.Module) -> None:
    """One update by the gradients of ``loss`` for this network alone, their mean over all ranks."""
    parameters = list(network.parameters())
    gradients = list(torch.autograd.grad(loss, parameters))
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        pieces = (flat / dist.get_world_size()).split([g.numel() for g in gradients])
        gradients = [piece.view_as(g) for piece, g in zip(pieces, gradients)]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
