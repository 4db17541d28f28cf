"""Train the WGAN-GP whose samples ``ood_gan`` uses: 5 critic steps per generator step, Adam, rate decaying to zero.

Source: Gulrajani et al. 2017, algorithm 1, with the settings of its CIFAR code (batch 64, generator batch 128, rate
2e-4, betas 0 and 0.9, linear decay over 100 000 steps). All random numbers of a step come from (seed, step), so a
resumed run ends with the same weights.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg import files, runs
from fastreg.distributed import World, resolve_device
from fastreg.errors import InputError, RunError, SharedError
from fastreg.log import log
from fastreg.models.wgan import Critic, Generator, critic_loss, dequantise, generator_loss
from fastreg.pipelines import open_dataset
from fastreg.progress import progress
from fastreg.training.config_checks import check_range
from fastreg.training.resume import command_to_continue, run_at
from fastreg.training.signals import stop_signals

CRITIC_STEPS = 5
READ_EVERY = 100  # steps whose losses are copied from the device at once
# settings that a resumed run may not change
_FIXED = ("dataset", "steps", "batch_size", "width", "latent", "lr", "seed")
_KEPT = (*_FIXED, "data_dir", "device", "save_every")  # settings that a checkpoint contains


def train_gan(
    dataset: str = "cifar100",
    *,
    data_dir: str | None = None,
    output: str = "runs",
    name: str = "gan",
    steps: int = 100_000,
    batch_size: int = 64,
    width: int = 128,
    latent: int = 128,
    lr: float = 2e-4,
    seed: int = 0,
    device: str = "auto",
    save_every: int = 1000,
    resume: bool | str = False,
) -> Path:
    """Train a WGAN-GP on the training split of a 32 x 32 data set.

    Args:
        dataset: name of the data set.
        data_dir: its folder; None: as for ``open_dataset``.
        output: parent folder of the run folder.
        name: name of the run folder.
        steps: generator steps.
        batch_size: images per critic step; the generator's batch is twice as large.
        width: channels of generator and critic.
        latent: length of the generator's input.
        lr: learning rate at the start; it decays linearly to zero.
        seed: key of all random numbers.
        device: "auto", "cpu", "cuda" or "cuda:1".
        save_every: steps between checkpoints.
        resume: "auto" or True continues the run in ``output``/``name``, a path the run in that folder.

    Returns:
        The run folder with last.pt (for ``methods.create("ood_gan", ood=folder)``), log.jsonl and samples.png.

    Raises:
        InputError: images of another size, a folder in use, or other settings on resume.
        RunError: a loss that is not finite, or a signal, after which last.pt is saved.
    """
    settings = {key: value for key, value in locals().items() if key in _KEPT}
    if min(steps, batch_size, width, latent, save_every) < 1 or lr <= 0:
        raise InputError(
            "`steps`, `batch_size`, `width`, `latent` and `save_every` must be at least 1, `lr` more than 0."
        )
    check_range("seed", seed)
    world = World(0, 1, resolve_device(device))
    folder = Path(output) / name
    if resume and resume not in (True, "auto"):
        folder = run_at(str(resume))
    source = open_dataset(dataset, "train", data_dir)
    if source.canvas != (32, 32):
        raise InputError(
            f"the GAN makes 32 x 32 images, and those of {dataset} have another size: train it on cifar100 or cifar10."
        )
    images = torch.from_numpy(np.stack([source.read(i) for i in range(len(source))])).to(world.device)

    torch.manual_seed(seed)
    pair = _Pair(Generator(latent, width).to(world.device), Critic(width).to(world.device), lr)
    with files.lock(folder), stop_signals(world) as stopping:
        first = _restore(folder, pair, settings, bool(resume), world.device)
        draw = torch.Generator(world.device)
        unread: list[Tensor] = []
        with progress("gan", steps * batch_size * CRITIC_STEPS, done=first * batch_size * CRITIC_STEPS) as bar:
            for step in range(first, steps):
                draw.manual_seed((seed * 1_000_003 + step) % (1 << 63))
                pair.decay(lr * (1 - step / steps))
                unread.append(pair.step(images, batch_size, draw))
                bar.advance(batch_size * CRITIC_STEPS)
                stop = stopping()
                save = stop or (step + 1) % save_every == 0 or step + 1 == steps
                if save or len(unread) == READ_EVERY:
                    critic, generator = _read(unread, step + 1, lambda at: lr * (1 - (at - 1) / steps), folder)
                    unread = []
                if save:
                    runs.save_checkpoint(folder / "last.pt", {"config": settings, "step": step + 1, **pair.state()})
                    _log(folder, {"step": step + 1, "critic_loss": critic, "generator_loss": generator})
                    _samples(folder / "samples.png", pair.generator, seed)
                if stop and step + 1 < steps:
                    command = command_to_continue("gan", folder, world)
                    raise SharedError(f"stopped at step {step + 1}; continue with: {command}")
    log.info("generator in %s/last.pt, its images in %s/samples.png", folder, folder)
    return folder


def gan_settings(path: str) -> dict[str, Any]:
    """Settings of :func:`train_gan` in the run of ``resume`` PATH. Raises InputError if the run is not a GAN's."""
    file = run_at(path) / "last.pt"
    state = runs.load_checkpoint(file)
    if "critic" not in state:
        raise InputError(f"`resume` {path}: {file} contains no GAN; give the folder of a run of `fastreg train gan`.")
    return {key: value for key, value in state["config"].items() if key in _KEPT}


def _read(losses: list[Tensor], step: int, rate: Callable[[int], float], folder: Path) -> list[float]:
    """The losses of ``step``, the last of those given. Raises RunError at the first that are not finite."""
    rows = torch.stack(losses).tolist()
    for at, (critic, generator) in enumerate(rows, step - len(rows) + 1):
        if not np.isfinite([critic, generator]).all():
            path = folder / "last.pt"
            last = f"{path} was saved before this step" if path.is_file() else "there is no checkpoint yet"
            raise RunError(
                f"the GAN's losses are {critic:g} and {generator:g} at step {at} (learning rate {rate(at):g}): start "
                f"again with a lower `lr` and another `name`; {last}."
            )
    return rows[-1]


class _Pair:
    """Generator, critic and their optimizers."""

    def __init__(self, generator: Generator, critic: Critic, lr: float) -> None:
        self.generator, self.critic = generator, critic
        self.optimizers = [torch.optim.Adam(m.parameters(), lr=lr, betas=(0.0, 0.9)) for m in (generator, critic)]

    def step(self, images: Tensor, batch_size: int, draw: torch.Generator) -> Tensor:
        """Five critic updates and one of the generator; the last losses, [2] on the device."""
        for_generator, for_critic = self.optimizers
        options: dict[str, Any] = {"generator": draw, "device": images.device}
        for _ in range(CRITIC_STEPS):
            rows = torch.randint(len(images), (batch_size,), **options)
            real = dequantise(images[rows], torch.rand(batch_size, 3, 32, 32, **options))
            with torch.no_grad():
                fake = self.generator(torch.randn(batch_size, self.generator.latent, **options))
            on_critic = critic_loss(self.critic, real, fake, torch.rand(batch_size, **options))
            for_critic.zero_grad()
            on_critic.backward()
            for_critic.step()
        self.critic.requires_grad_(False)
        fake = self.generator(torch.randn(2 * batch_size, self.generator.latent, **options))
        on_generator = generator_loss(self.critic, fake)
        for_generator.zero_grad()
        on_generator.backward()
        for_generator.step()
        self.critic.requires_grad_(True)
        return torch.stack((on_critic.detach(), on_generator.detach()))

    def decay(self, lr: float) -> None:
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = lr

    def state(self) -> dict[str, Any]:
        state = {"generator": self.generator.state_dict(), "critic": self.critic.state_dict()}
        return state | {f"optimizer_{i}": optimizer.state_dict() for i, optimizer in enumerate(self.optimizers)}

    def load(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.critic.load_state_dict(state["critic"])
        for i, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state[f"optimizer_{i}"])


def _restore(folder: Path, pair: _Pair, settings: dict[str, Any], resume: bool, device: torch.device) -> int:
    """Load the checkpoint, if there is one, and return the step to continue from."""
    path = folder / "last.pt"
    if not path.is_file():
        return 0
    if not resume:
        raise InputError(f"{folder} contains a GAN already: continue it with `resume` auto, or give another `name`.")
    state = runs.load_checkpoint(path, str(device))
    differing = [key for key in _FIXED if state.get("config", {}).get(key) != settings[key]]
    if differing:
        raise InputError(f"{folder} was started with another {', '.join(differing)}: use the same, or another `name`.")
    pair.load(state)
    rows = [row for row in _rows(folder) if row["step"] <= state["step"]]
    files.atomic_write(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return state["step"]


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of log.jsonl; a line cut off by a kill is left out."""
    path, rows = folder / "log.jsonl", []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("step"), int)]


def _log(folder: Path, row: dict[str, Any]) -> None:
    rows = [*_rows(folder), row]
    files.atomic_write(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _samples(path: Path, generator: Generator, seed: int) -> None:
    """An 8 x 8 sheet of images of fixed latents."""
    from PIL import Image

    device = next(generator.parameters()).device
    z = torch.randn(64, generator.latent, generator=torch.Generator().manual_seed(seed)).to(device)
    generator.eval()
    with torch.no_grad():
        pixels = ((generator(z) / 2 + 0.5) * 255).round().byte()
    generator.train()
    sheet = pixels.view(8, 8, 3, 32, 32).permute(0, 3, 1, 4, 2).reshape(256, 256, 3)
    buffer = io.BytesIO()
    Image.fromarray(sheet.cpu().numpy()).save(buffer, "PNG")
    files.atomic_write(path, buffer.getvalue())
