"""What a run needs before its first step: processes, device, precision, model, optimiser."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.training.config import Config

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# torch 2.13 renames the flag and warns of the old name
_SYNC = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(nn.parallel.DistributedDataParallel).parameters
)


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` is bf16 on sm_80 and newer, fp16 on older GPUs, fp32 on CPUs."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def build_method(config: Config) -> Any:
    """The method, and what its step needs opened."""
    from fastreg import methods

    own: dict[str, Any] = {"seed": config.seed, "dataset": config.dataset, "size": config.size, "scope": config.scope}
    method = methods.create(config.reg, **own, **config.reg_args)
    if method.prepare is not None:
        method.prepare()
    return method


def model_arguments(config: Config, method: Any) -> dict[str, Any]:
    """What the method and the recipe ask of ``create_model``."""
    return {**method.model, **({"blurpool": True} if config.blurpool else {})}


def build_model(
    config: Config, num_classes: int, place: World, arguments: Mapping[str, Any]
) -> tuple[nn.Module, nn.Module]:
    """``(model, net)``: the bare model that is saved, and what the loop calls (DDP, compiled).

    ``arguments`` go to ``create_model``.
    """
    from fastreg.models import create_model

    torch.manual_seed(config.seed)  # the same initial weights on every rank
    model = create_model(config.model, num_classes, stem=config.stem, **arguments).to(place.device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net: Any = model
    if config.sync_bn and place.device.type != "cuda":
        raise InputError("--sync-bn needs GPUs: torch's SyncBatchNorm has no other; leave the flag out.")
    if config.sync_bn and place.size > 1:
        net = model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if place.size > 1:
        # DDP's own broadcast would make rank 0's running statistics the run's: statistics.py takes the mean of all
        devices = [place.device.index] if place.device.type == "cuda" else None
        options: dict[str, Any] = {"device_ids": devices, _SYNC: False}
        net = nn.parallel.DistributedDataParallel(net, **options)
    if config.torchcompile:
        # one program for each size of picture and batch, since convolutions want their sizes known: some five sizes of
        # growing pictures, each in training and evaluation mode, whole and half (attacks), are more than dynamo's 8
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        net = torch.compile(net, mode=config.torchcompile, dynamic=False)
    return model, net


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """SGD (fused on a GPU) or Adam; norm parameters and biases go undecayed where the recipe says so."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim > 1 or config.norm_weight_decay else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}]
    if plain:
        groups.append({"params": plain, "weight_decay": 0.0})
    fused = next(model.parameters()).is_cuda
    if config.opt == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=fused)
    sgd = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
    start_momentum(sgd)
    return sgd


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Zeros for every momentum that SGD has not begun.

    torch's fused step makes them itself, unwritten, even in a first step that overflows in fp16 and is left out: the
    next one would go on from whatever lay in that memory. With zeros the numbers are the same.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
