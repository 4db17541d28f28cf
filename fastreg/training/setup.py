"""The setup before the first step of a run: switches of PyTorch, precision, method and model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.log import log
from fastreg.methods import Method, create
from fastreg.models import check_arguments, create_model
from fastreg.torch_switches import torch_switches
from fastreg.training.compiling import may_compile
from fastreg.training.config import Config
from fastreg.training.freeze import freeze
from fastreg.training.initial_weights import input_arguments

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# torch.compile makes one program for each image size, batch size and mode, because convolutions need known sizes.
# Growing images have about five sizes, each in training and evaluation mode, with whole and half batches (attacks):
# more than the compiler's default of 8.
RECOMPILE_LIMIT = 64
# the name of DistributedDataParallel's flag: torch 2.13 renamed it, and warns about the old name
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(nn.parallel.DistributedDataParallel).parameters
)


def training_switches(config: Config, device: torch.device) -> AbstractContextManager[None]:
    """Set PyTorch's process-wide switches for training steps on ``device``, for the length of a block."""
    return torch_switches(
        tf32=config.tf32,
        cudnn_benchmark=not config.deterministic,
        deterministic=config.deterministic,
        recompile_limit=RECOMPILE_LIMIT if may_compile(config, device) else None,
        eager_fallback=config.torchcompile == "auto" and may_compile(config, device),
    )


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision of "auto": bf16 on sm_80 and newer GPUs, fp16 on older ones, fp32 on CPUs."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def warn_about_bf16(precision: str, world: World, instructions: str) -> None:
    """Warn if a CPU without bf16 ``instructions`` is to train in bf16, which it then emulates."""
    if precision == "bf16" and world.device.type == "cpu" and world.rank == 0 and not instructions:
        log.warning("this CPU emulates bf16, as it has no instructions for it (AMX, AVX512-BF16): try precision fp32")


def build_method(config: Config) -> Method:
    """The method of ``config``, with the data of its training step opened.

    Raises:
        InputError: the method does not fit the loss, or its data are missing.
    """
    own: dict[str, Any] = {"seed": config.seed, "dataset": config.dataset, "size": config.size, "scope": config.scope}
    method = create(config.reg, **own, **config.reg_args)
    if config.bce_loss and method.softmax:
        raise InputError(
            f"`bce_loss` has a sigmoid per class, and `reg` {config.reg} compares softmax probabilities (its parameter "
            "jsd): leave `bce_loss` out, or turn jsd off in `reg_args`."
        )
    if method.prepare is not None:
        method.prepare()
    return method


def model_arguments(config: Config, method: Method) -> dict[str, Any]:
    """Arguments of ``create_model`` that the method and the recipe need."""
    check_arguments(config.model, config.model_kwargs, "`model_kwargs`")
    own: dict[str, Any] = {"blurpool": True} if config.blurpool else {}
    own |= {"in_channels": config.channels} if config.channels != 3 else {}
    return {**config.model_kwargs, **input_arguments(config), **method.model, **own}


def new_model(config: Config, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """The model of a run on the CPU, with its frozen parameters.

    Raises:
        InputError: an unknown model or argument, a size that it does not take, or a pattern that matches nothing.
    """
    torch.manual_seed(config.seed)  # the same initial weights on every rank
    model = create_model(config.model, num_classes, stem=config.stem, **arguments)
    pretrained = getattr(model, "pretrained_cfg", None) or {}
    side = getattr(model, "image_size", None) or (pretrained.get("fixed_input_size") and pretrained["input_size"][-1])
    side = None if arguments.get("dynamic_img_size") else arguments.get("img_size", side)
    for name in ("size", "eval_size", "min_size"):
        if side and getattr(config, name) not in (None, side):
            argument = "image_size" if config.model.startswith("torchvision:") else "img_size"
            raise InputError(
                f"`{name}` is {getattr(config, name)}, and {config.model} takes images of {side} px only: give {side}, "
                f'or `model_kwargs` {{"{argument}": {getattr(config, name)}}}.'
            )
    freeze(model, config.freeze)
    return model


def build_model(
    config: Config, num_classes: int, world: World, arguments: Mapping[str, Any], mode: str | None = None
) -> tuple[nn.Module, nn.Module]:
    """``(model, net)``: the bare model, which is saved, and the module that a step calls (DDP, compiled).

    ``arguments`` are passed to ``create_model``. ``mode``: that of ``torch.compile``; None does not compile.
    """
    model = new_model(config, num_classes, arguments).to(world.device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net: Any = model
    if config.sync_bn and world.device.type != "cuda":
        raise InputError("`sync_bn` needs GPUs, because PyTorch's SyncBatchNorm runs on nothing else: turn it off.")
    if config.sync_bn and world.size > 1:
        net = model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        freeze(model, config.freeze)  # conversion makes new modules, which would update their statistics
    if world.size > 1:
        # DDP would broadcast rank 0's running statistics; batchnorm.py takes the mean of all ranks
        devices = [world.device.index] if world.device.type == "cuda" else None
        options: dict[str, Any] = {"device_ids": devices, _SYNC_BUFFERS: False}
        net = nn.parallel.DistributedDataParallel(net, **options)
    if mode:
        net = torch.compile(net, mode=mode, dynamic=False)
    return model, net
