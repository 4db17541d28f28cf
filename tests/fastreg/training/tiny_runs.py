"""Every method on a network of nine blocks and 16 images: data, settings, and all of them trained by one command.

torchrun --nproc-per-node 2 -m tests.fastreg.training.tiny_runs DATA OUTPUT
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastreg import methods, models, runs
from fastreg.distributed import World
from fastreg.kernels import Batch
from fastreg.models import pyramidnet
from fastreg.models.wgan import Generator
from fastreg.training import Config, run_log, train, trainer
from fastreg.training.train_step import TrainStep

# names of runs with further settings
SETTINGS: dict[str, dict[str, Any]] = {
    "mixup repeated": {"reg": "mixup", "aug_repeats": 2},
    "balanced": {"reg": "gaussian_noise", "sampler": "balanced"},
}
REGS = [*methods.METHODS, "mixup+cutmix", "cutmix+random_erasing", "cutmix+shakedrop", "mixup+adversarial", *SETTINGS]
ALONE = World(0, 1, torch.device("cpu"))
STATISTICS = ((0.5,) * 3, (0.25,) * 3)


def write_data(root: Path) -> Path:
    """The data of all methods: CIFAR-100, SVHN, the checkpoint of a GAN."""
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    folder = root / "cifar100" / "cifar-100-python"
    folder.mkdir(parents=True)
    for split, count in (("train", 16), ("test", 4)):
        images = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        content = {"data": images, "fine_labels": [i * i % 9 % 4 for i in range(count)]}
        (folder / split).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list("abcd")}))
    (root / "svhn").mkdir()
    images = rng.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    savemat(root / "svhn" / "train_32x32.mat", {"X": images, "y": np.full((5, 1), 10)})
    runs.save_checkpoint(root / "gan.pt", {"generator": Generator(6, 8).state_dict()})
    return root


def settings(reg: str, output: Path, data: Path, **more: Any) -> Config:
    """Four steps of four images, with everything that a checkpoint contains: momentum, an average, a schedule."""
    own = {"ood": str(data / "gan.pt")} if reg == "ood_gan" else {}
    chosen: dict[str, Any] = {
        "model": "tiny", "stem": "cifar", "reg": reg, "reg_args": own, "ls": 0.1, "color_jitter": 0.4, "lighting": 0.1,
        "epochs": 1, "batch_size": 4, "sched": "cosine", "lr": 0.05, "model_ema_decay": 0.9, "size": 16,
        "eval_size": 16, "device": "cpu", "workers": 1, "recovery_interval": 2, "log_interval": 1,
        "output": str(output), "name": "run",
    }  # fmt: skip
    return Config("cifar100", **{**chosen, **SETTINGS.get(reg, {}), **more})


def shrink(patch: Any, data: Path) -> None:
    """Add the small network as "tiny", draw no curves, and set the default data folder."""
    patch.setitem(models.MODELS, "tiny", partial(pyramidnet.PyramidNet, 20, 12, False))
    patch.setattr(trainer, "draw_curves", lambda folder: None)
    patch.setattr(run_log, "environment", dict)
    patch.setenv("FASTREG_DATA", str(data))


def shrunk(patch: Any, data: Path) -> Iterator[Any]:
    """:func:`shrink` on one thread, for the length of a test."""
    shrink(patch, data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield patch
    torch.set_num_threads(threads)


def batch(step: int, count: int = 4, side: int = 16) -> Batch:
    """Random images of four classes, whose samples no other step sees."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.randint(0, 4, (count,), generator=generator), torch.arange(count) + count * step, None)


def advance(train_step: TrainStep, steps: range) -> list[float]:
    """Train some of eight steps; the losses of all micro-batches."""
    losses = []
    for step in steps:
        for micro in range(train_step.config.grad_accum_steps):
            losses.append(train_step.forward_backward(batch(7 * step + micro), step, micro, 16).item())
        train_step.update(step, 8)
    return losses


class Stopped(Exception):
    """A run cut off between two steps."""


def stop_at(step: int) -> Callable[..., float]:
    """``TrainStep.update`` that raises :class:`Stopped` before step ``step``."""

    def update(self: TrainStep, at: int, steps: int, update: Any = TrainStep.update) -> float:
        if at == step:
            raise Stopped
        return update(self, at, steps)

    return update


def pretend_rank(patch: Any, rank: int, folder: Path, size: int = 2) -> list[str]:
    """Let the next run be one of ``size`` ranks, in ``folder``. Returns a list of its collective calls."""
    calls: list[str] = []

    @contextmanager
    def init(device: str) -> Iterator[World]:
        yield World(rank, size, torch.device("cpu"))

    def broadcast(chosen: list[Any], src: int) -> None:
        chosen[0] = (folder, False)

    patch.setattr(trainer, "init_distributed", init)
    patch.setattr(torch.nn.parallel, "DistributedDataParallel", lambda net, **options: net)
    patch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    for name in ("all_reduce", "all_gather_object", "barrier"):
        patch.setattr(torch.distributed, name, lambda *given, name=name: calls.append(name))
    return calls


def train_all(data: Path, output: Path, **more: Any) -> None:
    """A run in ``output``/METHOD for each method."""
    for reg in REGS:
        train(settings(reg, output / reg, data, **more))


if __name__ == "__main__":
    import pytest

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")  # once for all runs
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, Path(sys.argv[1]))
        train_all(Path(sys.argv[1]), Path(sys.argv[2]))
    torch.distributed.destroy_process_group()  # a process that exits with gloo's threads alive may abort
