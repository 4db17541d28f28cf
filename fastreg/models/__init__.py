"""Models: ``create_model(name, num_classes)`` maps normalized images [B, 3, h, w] to logits [B, num_classes]."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from fastreg.errors import InputError, extra, unknown
from fastreg.models.arguments import check_arguments
from fastreg.models.branch import branch_layers, set_fields
from fastreg.models.cifarnet import CIFARNETS, CifarNet
from fastreg.models.gray import with_gray_input
from fastreg.models.normalized import Normalized
from fastreg.models.own import build_own, is_own
from fastreg.models.pyramidnet import PYRAMIDNETS, PyramidNet
from fastreg.models.resnet import RESNETS, ResNet
from fastreg.models.robustbench import INSTALL, build_robustbench

__all__ = ["MODELS", "Normalized", "branch_layers", "check_arguments", "create_model", "set_fields"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(ResNet, *row) for name, row in RESNETS.items()},
    **{name: partial(PyramidNet, *row) for name, row in PYRAMIDNETS.items()},
    **{name: partial(CifarNet, widths) for name, widths in CIFARNETS.items()},
}
"""Name -> function of (num_classes, **arguments) that returns the model. ``create_model`` also takes ``timm:NAME``,
``torchvision:NAME``, ``robustbench:NAME`` and ``package.module:function``."""

STEMS = ("imagenet", "cifar")


def create_model(
    name: str, num_classes: int, shakedrop: bool = False, stem: str = "imagenet", *, in_channels: int = 3, **kw: Any
) -> nn.Module:
    """Create a model in training mode, initialized from torch's current random state.

    Args:
        name: A name of ``MODELS``, ``timm:NAME``, ``torchvision:NAME``, ``robustbench:NAME`` (the architecture), or
            ``package.module:function``: the user's own function, called with ``num_classes`` if it takes it.
        num_classes: Number of outputs, 1 or more.
        shakedrop: Whether residual branches have ShakeDrop (ResNets and PyramidNets).
        stem: First layers of a ResNet: ``"imagenet"`` (7x7, stride 2, max-pool) or ``"cifar"`` (3x3, stride 1). Other
            models have one stem and ignore it.
        in_channels: 3, or 1 for a model of the pixels' gray values: it takes [B, 3, h, w], whose gray value it
            computes, and [B, 1, h, w].
        kw: Further arguments: ``stochastic_depth`` (share of dropped branches in the last layer) for ResNets and
            PyramidNets, ``blurpool`` and ``zero_init_residual`` for ResNets, their own arguments for timm and
            torchvision models.

    Returns:
        The model: float [B, 3, h, w] normalized images to float [B, num_classes] logits.

    Raises:
        InputError: The name is unknown, its package is missing, or the model does not take an argument.

    Source:
        The module of each model names its paper.
    """
    if not isinstance(num_classes, int) or num_classes < 1:
        raise InputError(f"`num_classes` is {num_classes!r}: give a whole number, 1 or more.")
    if stem not in STEMS:
        raise unknown("`stem`", stem, STEMS)
    if in_channels not in (1, 3):
        raise InputError(
            f"`in_channels` is {in_channels!r}: images have three channels, so give 3, or 1 for their gray value."
        )
    package, _, rest = name.partition(":")
    own = is_own(name)
    if not (name in MODELS or (package in _PACKAGES and rest) or own):
        known = [*MODELS, *(f"{package}:NAME" for package in _PACKAGES), "package.module:function"]
        raise unknown("model", name, known)
    for key, dropping in (("shakedrop", "ShakeDrop"), ("stochastic_depth", "stochastic depth")):
        residual = [known for known, build in MODELS.items() if key in inspect.signature(build).parameters]
        if {"shakedrop": shakedrop, **kw}.get(key) and name not in residual:
            raise InputError(f"{dropping} works on {', '.join(residual)}, not on {name}: leave it out.")
    try:
        if own:
            model = build_own(name, num_classes, kw)
        elif name not in MODELS:
            model = _PACKAGES[package](rest, num_classes, kw)
        else:
            build = MODELS[name]
            takes = inspect.signature(build).parameters
            given = {key: value for key, value in (("stem", stem), ("shakedrop", shakedrop)) if key in takes}
            model = build(num_classes, **given, **kw)
    except TypeError as error:
        raise InputError(f"model {name!r} does not take these arguments: {error}.") from error
    return with_gray_input(model, name) if in_channels == 1 else model


def _timm(name: str, num_classes: int, kw: dict[str, Any]) -> nn.Module:
    timm = import_package("timm", f"model timm:{name}", extra("timm"))
    if name.partition(".")[0] not in timm.list_models():
        raise unknown("timm model", name, timm.list_models())
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that the architecture does not have
        raise unknown("timm model", name, timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)) from None
    return timm.create_model(name, num_classes=num_classes, **kw)


def _torchvision(name: str, num_classes: int, kw: dict[str, Any]) -> nn.Module:
    models = import_package("torchvision", f"model torchvision:{name}", extra("peers")).models
    known = models.list_models(module=models)  # classifiers only
    if name not in known:
        raise unknown("torchvision model", name, known)
    if name in _AUXILIARY:  # heads that only a published training used; with them a model in training returns tuples
        kw = {"aux_logits": False, "init_weights": True, **kw}
    return models.get_model(name, weights=None, num_classes=num_classes, **kw)


def _robustbench(name: str, num_classes: int, kw: dict[str, Any]) -> nn.Module:
    return build_robustbench(import_robustbench(name), name, num_classes, kw)


def import_robustbench(name: str) -> Any:
    """The package ``robustbench``, with its modules ``utils`` and ``model_zoo``, for the model of that name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources
        import_package("robustbench.utils", f"model robustbench:{name}", INSTALL)
        return import_package("robustbench", f"model robustbench:{name}", INSTALL)


def import_package(package: str, user: str, install: str) -> Any:
    """Import a package of models.

    Args:
        package: Name of the package.
        user: What needs it, such as "model timm:resnet50", for the error.
        install: Command that installs it, for the error.

    Returns:
        The module.

    Raises:
        InputError: The package is missing, or was built for another version of torch.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(f"{user} needs {error.name}, which is not installed: {install}.") from error
    except (ImportError, RuntimeError) as error:  # torchvision that was built for another torch fails on import
        raise InputError(
            f"{user} needs a torchvision built for this torch ({type(error).__name__}: {error}): "
            "pip install torchvision, from the same index as torch."
        ) from error


_AUXILIARY = ("googlenet", "inception_v3")
_PACKAGES = {"timm": _timm, "torchvision": _torchvision, "robustbench": _robustbench}
