"""Models: ``create_model(name, num_classes)`` takes normalised [B, 3, h, w] images and gives logits."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from fastreg.errors import InputError, extra, unknown
from fastreg.models.branch import branch_layers, set_fields
from fastreg.models.cifarnet import CIFARNETS, CifarNet
from fastreg.models.normalized import Normalized
from fastreg.models.pyramidnet import PYRAMIDNETS, PyramidNet
from fastreg.models.resnet import RESNETS, ResNet

__all__ = ["MODELS", "Normalized", "branch_layers", "create_model", "set_fields"]

MODELS = (*RESNETS, *PYRAMIDNETS, *CIFARNETS)
"""The names that need no further package; ``timm:NAME`` and ``torchvision:NAME`` come on top."""

STEMS = ("imagenet", "cifar")


def create_model(name: str, num_classes: int, shakedrop: bool = False, stem: str = "imagenet", **kw: Any) -> nn.Module:
    """A freshly initialised model in training mode, from torch's current random state.

    ``name``: one of ``MODELS``, ``timm:NAME`` or ``torchvision:NAME``. ``stem`` chooses a ResNet's first layers:
    "imagenet" (7x7, stride 2, max-pool) or "cifar" (3x3, stride 1); the others have but one stem and ignore it.
    ``kw``: ``stochastic_depth`` (share of dropped branches in the last layer) for ours; ``blurpool`` and
    ``zero_init_residual`` for ResNets; for timm and torchvision, their own arguments.

    Raises InputError for an unknown name, a missing package, or an argument that the model does not take.
    """
    if not isinstance(num_classes, int) or num_classes < 1:
        raise InputError(f"num_classes must be a positive integer, but is {num_classes!r}.")
    package, _, rest = name.partition(":")
    own: dict[str, Any] = {"shakedrop": shakedrop, **kw}
    if stem not in STEMS:
        raise unknown("stem", stem, STEMS)
    residual = (*RESNETS, *PYRAMIDNETS)
    for key, dropping in (("shakedrop", "ShakeDrop"), ("stochastic_depth", "stochastic depth")):
        if own.get(key) and name not in residual and (package in _PACKAGES or name in MODELS):
            raise InputError(f"{dropping} works on {', '.join(residual)}, not on {name}: leave it out.")
    try:
        if package in _PACKAGES and rest:
            return _PACKAGES[package](rest, num_classes, kw)
        if name in RESNETS:
            return ResNet(*RESNETS[name], num_classes, stem=stem, **own)
        if name in PYRAMIDNETS:
            return PyramidNet(*PYRAMIDNETS[name], num_classes, **own)
        if name in CIFARNETS:
            return CifarNet(CIFARNETS[name], num_classes, **kw)
    except TypeError as error:
        raise InputError(f"model {name!r} does not take these arguments ({error}).") from error
    raise unknown("model", name, [*MODELS, "timm:NAME", "torchvision:NAME"])


def _timm(name: str, num_classes: int, kw: dict[str, Any]) -> nn.Module:
    timm = _need("timm", f"timm:{name}", extra("timm"))
    if name.partition(".")[0] not in timm.list_models():
        raise unknown("timm model", name, timm.list_models())
    return timm.create_model(name, num_classes=num_classes, **kw)


def _torchvision(name: str, num_classes: int, kw: dict[str, Any]) -> nn.Module:
    models = _need("torchvision", f"torchvision:{name}", extra("peers")).models
    if name not in models.list_models():
        raise unknown("torchvision model", name, models.list_models())
    return models.get_model(name, weights=None, num_classes=num_classes, **kw)


def _need(package: str, model: str, install: str) -> Any:
    """The imported package. Raises InputError where it is missing, or meets another torch than it was built for."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(f"model {model} needs {error.name}, which is not installed: {install}.") from error
    except (ImportError, RuntimeError) as error:  # torchvision beside another torch fails while it registers itself
        raise InputError(
            f"model {model} needs a torchvision built for this torch ({type(error).__name__}: {error}): "
            "pip install torchvision, from the same index as torch."
        ) from error


_PACKAGES = {"timm": _timm, "torchvision": _torchvision}
