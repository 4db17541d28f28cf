"""WGAN-GP for 32 px images: residual generator and critic, and their losses.

    critic     mean D(fake) - mean D(real) + 10 mean (|grad_x D(x)| - 1)^2,  x = real + u (fake - real), u ~ U(0, 1)
    generator  -mean D(fake)

Source: Gulrajani et al., Improved training of Wasserstein GANs (NeurIPS 2017), algorithm 1 and appendix C, and its code
for initialization, the order of pooling and dequantization. Unconditional: without labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PENALTY = 10.0
SIDE = 32  # of the generator's images in pixels


class Block(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, and a 1x1 shortcut; ``resample`` doubles ("up") or halves ("down") the side.

    ``first``: no ReLU before the first convolution, for the critic's first block, whose input is pixels. ``norm``:
    batch norm before each ReLU, for the generator's blocks.
    """

    def __init__(self, inputs: int, outputs: int, resample: str = "", norm: bool = False, first: bool = False):
        super().__init__()
        middle = inputs if resample == "down" and not first else outputs
        self.resample, self.first = resample, first
        self.norm1 = nn.BatchNorm2d(inputs) if norm else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, middle, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(middle) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(middle, outputs, 3, padding=1)
        same = inputs == outputs and not resample
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.first else F.relu(self.norm1(x))
        if self.resample == "up":
            y = F.interpolate(y, scale_factor=2)
        y = self.conv2(F.relu(self.norm2(self.conv1(y))))
        # a 1x1 convolution commutes with both kinds of resampling, and is cheaper on the smaller image
        if self.resample == "up":
            return y + F.interpolate(self.shortcut(x), scale_factor=2)
        if self.resample == "down":
            return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))
        return y + self.shortcut(x)


class Generator(nn.Module):
    """Standard normal latents [B, latent] to images [B, 3, 32, 32] in [-1, 1]."""

    def __init__(self, latent: int = 128, width: int = 128):
        super().__init__()
        self.latent, self.width = latent, width
        self.input = nn.Linear(latent, 16 * width)
        self.blocks = nn.Sequential(*(Block(width, width, "up", norm=True) for _ in range(3)))
        self.norm = nn.BatchNorm2d(width)
        self.output = nn.Conv2d(width, 3, 3, padding=1)
        initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        x = self.blocks(self.input(z).view(-1, self.width, 4, 4))
        return self.output(F.relu(self.norm(x))).tanh()


class Critic(nn.Module):
    """Images [B, 3, 32, 32] in [-1, 1] to scores [B]. No norm, since the penalty is on each image's own gradient."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.blocks = nn.Sequential(
            Block(3, width, "down", first=True), Block(width, width, "down"), Block(width, width), Block(width, width)
        )
        self.output = nn.Linear(width, 1)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.relu(self.blocks(x)).mean((2, 3))).squeeze(1)


def initialize(model: nn.Module) -> None:
    """Weights uniform, variance 4 / (fan-in + fan-out) inside blocks, 2 / (fan-in + fan-out) elsewhere; biases 0."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            inner = name.endswith(("conv1", "conv2"))
            fans = sum(nn.init._calculate_fan_in_and_fan_out(module.weight))
            bound = math.sqrt(3 * (4 if inner else 2) / fans)
            nn.init.uniform_(module.weight, -bound, bound)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def dequantise(images: Tensor, noise: Tensor) -> Tensor:
    """uint8 [B, h, w, 3] to float32 [B, 3, h, w] in [-1, 1); ``noise`` uniform in [0, 1), [B, 3, h, w]."""
    return (images.permute(0, 3, 1, 2).float() + noise) / 128 - 1


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """mean (|grad D(x)| - 1)^2 at x = real + mix (fake - real), mix [B]; differentiable once more."""
    x = torch.lerp(real, fake, mix.view(-1, 1, 1, 1)).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def critic_loss(critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """The loss that the critic minimizes; ``fake`` has no graph."""
    scores = critic(torch.cat((real, fake)))
    on_real, on_fake = scores.tensor_split((len(real),))
    return on_fake.mean() - on_real.mean() + PENALTY * gradient_penalty(critic, real, fake, mix)


def generator_loss(critic: nn.Module, fake: Tensor) -> Tensor:
    """The loss that the generator minimizes."""
    return -critic(fake).mean()


def build_generator(state: Mapping[str, Tensor]) -> Generator:
    """The generator of a state dict, in evaluation mode; its sizes are those of the tensors."""
    rows, latent = state["input.weight"].shape
    generator = Generator(latent, rows // 16)
    generator.load_state_dict(state)
    return generator.eval()


def load_generator(path: Path | str) -> Generator:
    """The generator of a checkpoint file or run folder, in evaluation mode on the CPU.

    Raises:
        InputError: The file is not a checkpoint of `fastreg train gan`.
    """
    from fastreg.errors import InputError
    from fastreg.runs import load_checkpoint

    path = Path(path)
    if path.is_dir():
        path = path / "last.pt"
    state = load_checkpoint(path)
    if "generator" not in state:
        raise InputError(f"{path} has no generator: give a checkpoint of `fastreg train gan`.")
    return build_generator(state["generator"])
