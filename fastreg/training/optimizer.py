"""Optimizers: torch's SGD, Adam and AdamW, and those of timm; groups of parameters with their decay and rate.

A group has its own weight decay, and ``lr_scale``, the factor of its rate, if the run has ``layer_decay``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fastreg.errors import InputError, extra, unknown
from fastreg.models import import_package
from fastreg.training.config import Config

_SGD = torch.optim.SGD
_REFUSED = {  # optimizers of timm by the start of their name
    "adahessian": "needs second derivatives, which a step does not compute",
    "kron": "draws random numbers that no checkpoint contains, so that a run could not be resumed",
}


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a run, fused on a GPU if it is torch's.

    Args:
        config: settings of the run.
        model: its parameters that require a gradient are trained.

    Returns:
        The optimizer.

    Raises:
        InputError: timm is missing or has no such optimizer, or ``layer_decay`` does not know the model's layers.
    """
    groups = parameter_groups(config, model)
    options: dict[str, Any] = {}
    if config.opt_eps is not None:
        options["eps"] = config.opt_eps
    if config.opt_betas:
        options["betas"] = config.opt_betas
    package, _, name = config.opt.rpartition(":")
    if package == "timm":
        return _timm(name, groups, config, options)
    options["fused"] = next(model.parameters()).is_cuda
    if name == "sgd":
        sgd = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, **options)
        start_momentum(sgd)
        return sgd
    adam = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return adam(groups, lr=config.lr, **options)


def _timm(name: str, groups: list[dict[str, Any]], config: Config, options: dict[str, Any]) -> torch.optim.Optimizer:
    check_timm_optimizer(name)
    optim = import_package("timm.optim", f"`opt` timm:{name}", extra("timm"))
    try:
        return optim.create_optimizer_v2(
            groups, opt=name, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum, **options
        )
    except Exception as error:  # of the optimizer's own checks, or of a package that it needs
        raise InputError(f"`opt` timm:{name} cannot be used ({(str(error).splitlines() or [''])[0]}).") from error


def check_timm_optimizer(name: str) -> None:
    """Check the name of an optimizer of timm.

    Raises:
        InputError: timm is missing, has no such optimizer, or a run cannot use it.
    """
    optim = import_package("timm.optim", f"`opt` timm:{name}", extra("timm"))
    known = optim.list_optimizers(exclude_filters=["bnb*", "fused*"])  # those of timm itself
    base = name.removeprefix("lookahead_")
    if base not in known:
        raise unknown("optimizer of timm", name, known)
    for start, reason in _REFUSED.items():
        if base.startswith(start):
            raise InputError(f"`opt` timm:{name} {reason}: give another optimizer.")


def parameter_groups(config: Config, model: nn.Module) -> list[dict[str, Any]]:
    """The trained parameters by weight decay and, with ``layer_decay``, by layer.

    Without ``norm_weight_decay``, norm parameters and biases have no weight decay. Nor have the parameters that a model
    of timm names (``no_weight_decay``, such as position embeddings), unless SGD or Adam train them all at one rate.
    """
    exempt: set[str] = set()
    if not config.norm_weight_decay and (config.layer_decay or config.opt not in ("sgd", "adam")):
        exempt = set(getattr(model, "no_weight_decay", set)())
    layers = layer_numbers(config.model, model) if config.layer_decay else {}
    top = max(layers.values(), default=0)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for decays in (True, False):  # parameters with decay come first in checkpoints
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if decays != (config.norm_weight_decay or (parameter.ndim > 1 and name not in exempt)):
                continue
            layer = layers.get(name, top)
            group = groups.setdefault(
                (layer, decays), {"params": [], "weight_decay": config.weight_decay if decays else 0.0}
            )
            group["params"].append(parameter)
            if config.layer_decay:
                group["lr_scale"] = config.layer_decay ** (top - layer)
    if not groups:
        raise InputError("`freeze` leaves no parameter to train: give patterns of fewer parameters.")
    return list(groups.values())


def layer_numbers(name: str, model: nn.Module) -> dict[str, int]:
    """The layer of each parameter, from 0 at the input: timm's own grouping, and the stages of ResNets and PyramidNets.

    Raises:
        InputError: the model has neither.
    """
    if hasattr(model, "group_matcher"):
        models = import_package("timm.models", f"model {name}", extra("timm"))
        matcher: Any = model.group_matcher
        return dict(models.group_parameters(model, matcher(coarse=False), reverse=True))
    layers: dict[str, int] = {}
    stage = last = 0
    for parameter, _ in model.named_parameters():
        found = re.match(r"layer(\d+)\.", parameter)
        stage = int(found[1]) if found else last + 1 if last else 0
        last = max(last, stage) if found else last
        layers[parameter] = stage
    if not last:
        raise InputError(
            f"`layer_decay` works on timm's models, ResNets and PyramidNets, whose layers are known, not on {name}."
        )
    return layers


def load_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Continue from a saved state, with the optimizer's own rates and decays in place of the saved ones.

    Entries of a group that are no settings, such as the step count of timm's LAMB, are those that were saved.
    """
    own = optimizer.state_dict()["param_groups"]
    groups = [{**saved, **mine} for saved, mine in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    start_momentum(optimizer)


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Set each missing momentum buffer of torch's SGD to zeros, which changes no result.

    torch's fused step allocates missing buffers itself and does not write them if an fp16 overflow skips the step; the
    next step would read uninitialized memory.
    """
    if not isinstance(optimizer, _SGD):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
