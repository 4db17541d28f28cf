"""``torchcompile`` "auto": whether a run's model is compiled, and in which mode."""

from __future__ import annotations

import os
import shutil
import sys

import torch

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.log import log
from fastreg.methods import Method
from fastreg.models import MODELS
from fastreg.training.config import Config

# Modes of torch.compile that replay CUDA graphs.
GRAPHS = ("reduce-overhead", "max-autotune")
# Names of timm's and torchvision's models, from their beginning, of families that become one program without a graph
# break; tests/fastreg/training/test_compiling.py traces one model of each.
FAMILIES: dict[str, tuple[str, ...]] = {
    "timm": (
        "resnet",
        "resnext",
        "wide_resnet",
        "seresnet",
        "regnet",
        "convnext",
        "efficientnet",
        "mobilenetv3",
        "vit_",
        "deit",
        "swin_",
        "mixer",
    ),
    "torchvision": (
        "resnet",
        "resnext",
        "wide_resnet",
        "regnet",
        "convnext",
        "efficientnet",
        "mobilenet",
        "vgg",
        "vit_",
    ),
}
FEWEST_STEPS = 1000  # a run with fewer ends about as early without the compiler


def resolve_torchcompile(config: Config, method: Method, world: World, steps: int | None = None) -> str | None:
    """The mode in which a run's model is compiled; None: it is not.

    A CPU never compiles by itself, so that its results stay as they are. On a GPU, rank 0 logs the choice.

    Args:
        config: settings of the run; another ``torchcompile`` than "auto" is the result.
        method: the run's method.
        world: this rank.
        steps: steps of the whole run; None: unknown.

    Returns:
        A mode of ``torch.compile``, or None.

    Raises:
        InputError: a CPU is to compile, and there is no C++ compiler.
    """
    if config.torchcompile != "auto":
        if config.torchcompile not in (None, "off") and world.device.type == "cpu":
            _require_compiler()
        return None if config.torchcompile == "off" else config.torchcompile
    if world.device.type != "cuda":
        return None
    reason = _reason_against(config, steps)
    mode = None if reason else "reduce-overhead" if _replays(config, method, world) else "default"
    if world.rank == 0 and mode:
        log.info(
            "compiling %s (torch.compile, mode %s): the first step takes a minute or more; torchcompile off skips it",
            config.model,
            mode,
        )
    elif world.rank == 0:
        log.info("%s is not compiled: %s; torchcompile default compiles it", config.model, reason)
    return mode


def _require_compiler() -> None:
    """On a CPU, torch.compile writes C++ and runs $CXX, or g++ (clang++ on a Mac)."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise InputError(
            f"`torchcompile` needs a C++ compiler on a CPU, and {compiler} is not installed: install it, set CXX to "
            "another one, or leave `torchcompile` at auto, which compiles on GPUs only."
        )


def compiles(name: str) -> bool:
    """Whether a model is known to become one program without a graph break."""
    package, _, model = name.partition(":")
    return name in MODELS or model.startswith(FAMILIES.get(package, ()))


def may_compile(config: Config, device: torch.device) -> bool:
    """Whether a run may compile its model: for switches that are set before the method is known."""
    return config.torchcompile not in (None, "off", "auto") or (config.torchcompile == "auto" and device.type == "cuda")


def _reason_against(config: Config, steps: int | None) -> str:
    """The reason not to compile; empty if there is none."""
    if not compiles(config.model):
        return "it is not among the models that are known to compile as a whole"
    if config.sync_bn:
        return "sync_bn exchanges statistics between its layers"
    if steps is not None and steps < FEWEST_STEPS:
        return f"the run has {steps} steps only"
    return ""


def _replays(config: Config, method: Method, world: World) -> bool:
    """Whether CUDA graphs pay and are sound: small images, one forward pass per step, one rank, one size."""
    return config.dataset.startswith("cifar") and method.step is None and world.size == 1 and config.min_size is None
