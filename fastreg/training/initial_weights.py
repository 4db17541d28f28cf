"""The start of a run from weights: published ones, or those of a file; a new head for other classes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastreg import runs
from fastreg.errors import InputError, extra
from fastreg.evaluation.published_weights import downloaded, transforms_input
from fastreg.evaluation.weights_file import AUXILIARY, WrongClasses, fill, last_layer, read
from fastreg.models import create_model, import_package
from fastreg.models.resnet import RESNETS
from fastreg.training.config import Config

Statistics = tuple[Sequence[float], Sequence[float]]  # mean and std per channel, on the 0-1 scale
_TRANSFORM = ("torchvision:googlenet", "torchvision:inception_v3")  # whose published weights transform their input


def load_initial_weights(config: Config, model: nn.Module, num_classes: int, arguments: Mapping[str, Any]) -> str:
    """Load ``pretrained`` weights, or those of ``initial_checkpoint``, into a new model.

    The last layer stays as it is if the weights are for another number of classes.

    Args:
        config: settings of the run.
        model: a model of ``create_model(config.model, num_classes)``; changed in place.
        num_classes: its outputs.
        arguments: the other arguments with which it was made.

    Returns:
        A message that names the weights and the new head.

    Raises:
        InputError: the model has no published weights, or the file cannot be read or does not fit the model.
        RunError: the weights cannot be downloaded.
    """
    if config.pretrained:
        state, heads, classes = _published(config, num_classes, arguments)
        source = f"the published ones of {config.model}"
    else:
        state, heads, classes, source = _of_file(config, model, num_classes, arguments)
    own = model.state_dict()
    new = classes != num_classes
    kept = {name: value for name, value in state.items() if name in own and not (new and name.startswith(heads))}
    wrong = [name for name, value in kept.items() if value.shape != own[name].shape]
    wrong += [name for name in own if name not in kept and not name.startswith((*AUXILIARY, *heads))]
    wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]
    if wrong:
        raise InputError(
            f"{source} do not fit this model: {wrong[0]} differs; leave out what changes its layers (`stem`, "
            f"`model_kwargs`), or give `initial_checkpoint`."
        )
    model.load_state_dict(kept, strict=False)
    if not new:
        return f"initial weights: {source}; with their head, which has {num_classes} classes too"
    was = f"{classes:,} classes" if classes else "none"
    return f"initial weights: {source}; new head {heads[0].removesuffix('.')} for {num_classes} classes, was {was}"


def _published(
    config: Config, num_classes: int, arguments: Mapping[str, Any]
) -> tuple[dict[str, Tensor], tuple[str, ...], int]:
    """Published weights of a model, the prefixes of its heads, and its number of classes."""
    package, _, name = config.model.rpartition(":")
    with torch.random.fork_rng(devices=[]):  # the model below draws initial weights that nothing uses
        if package == "timm":
            cfg = _timm_cfg(config.model)
            donor = downloaded(
                config.model,
                lambda: create_model(config.model, num_classes, pretrained=True, **arguments),
                "initial_checkpoint",
            )
            heads = cfg.classifier or last_layer(donor.state_dict())
            heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
            return donor.state_dict(), heads, cfg.num_classes or 0
        models, weights = _torchvision_weights(config.model)
        donor = downloaded(
            config.model, lambda: models.get_model(name, weights=weights, progress=False), "initial_checkpoint"
        )
    state = donor.state_dict()
    return state, (f"{last_layer(state)}.",), len(weights.meta["categories"])


def _of_file(
    config: Config, model: nn.Module, num_classes: int, arguments: Mapping[str, Any]
) -> tuple[dict[str, Tensor], tuple[str, ...], int, str]:
    """Weights of a file, the prefix of its head, its number of classes, and a description of it."""
    path, content = _read(config)
    key = config.weights_key or ("model" if _is_run(content) else None)
    donor, classes = copy.deepcopy(model).cpu(), num_classes
    try:
        key, others = fill(donor, path, config.model, key, content)
    except WrongClasses as error:
        classes = error.found
        donor = create_model(config.model, classes, stem=config.stem, **arguments)
        key, others = fill(donor, path, config.model, key, content)
    source = f"{key} of {path}" if key else str(path)
    state = donor.state_dict()
    source += f" (which also has {', '.join(others)})" if others else ""
    return state, (f"{last_layer(state)}.",), classes, source


def _read(config: Config) -> tuple[Path, Any]:
    path = Path(str(config.initial_checkpoint))
    if not path.exists():
        raise InputError(f"`initial_checkpoint` {path} does not exist: give a file of weights, or a run folder.")
    path = runs.checkpoint_path(path)
    return path, read(path)


def _is_run(content: Any) -> bool:
    return isinstance(content, dict) and content.get("format") == runs.FORMAT


def input_statistics(config: Config) -> Statistics | None:
    """Mean and std with which the initial weights of a run were trained; None: those of the data."""
    if config.initial_checkpoint:
        content = _read(config)[1]
        if _is_run(content):
            return content["config"]["mean"], content["config"]["std"]
        if not config.model.startswith("timm:"):
            return None
    elif not config.pretrained:
        return None
    if config.model.startswith("timm:"):
        timm = import_package("timm", f"model {config.model}", extra("timm"))
        cfg = timm.get_pretrained_cfg(config.model.partition(":")[2])
        return (cfg.mean, cfg.std) if cfg is not None else None
    own = _torchvision_weights(config.model)[1].transforms()
    return own.mean, own.std


def input_arguments(config: Config) -> dict[str, Any]:
    """Arguments of a model that transforms its input as its published weights need it."""
    if config.model not in _TRANSFORM:
        return {}
    path = config.initial_checkpoint
    transform = config.pretrained or (path and Path(path).is_file() and transforms_input(config.model, path))
    return {"transform_input": True} if transform else {}


def _timm_cfg(model: str) -> Any:
    timm = import_package("timm", f"model {model}", extra("timm"))
    try:
        cfg = timm.get_pretrained_cfg(model.partition(":")[2])
    except RuntimeError:  # a tag that the architecture does not have
        cfg = None
    if cfg is None or not cfg.has_weights:
        raise InputError(f"{model} has no published weights: turn `pretrained` off, or give `initial_checkpoint`.")
    return cfg


def _torchvision_weights(model: str) -> tuple[Any, Any]:
    """torchvision's models, and its newest weights of a model, or of a ResNet of fastreg."""
    package, _, name = model.rpartition(":")
    if package != "torchvision" and name not in RESNETS:
        raise InputError(
            f"{model} has no published weights, only timm:NAME, torchvision:NAME and {', '.join(RESNETS)} have: turn "
            f"`pretrained` off, or give `initial_checkpoint`."
        )
    models = import_package("torchvision", f"`pretrained` {model}", extra("peers")).models
    return models, models.get_model_weights(name).DEFAULT
