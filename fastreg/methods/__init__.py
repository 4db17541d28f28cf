"""Regularization methods, one module each. ``create(name, **parameters)`` returns a ``Method`` (draw, step, fields)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.methods.adversarial import adversarial
from fastreg.methods.alp import alp
from fastreg.methods.alternating_flip import alternating_flip
from fastreg.methods.augmix import augmix
from fastreg.methods.auto_augment_policy import auto_augment_policy
from fastreg.methods.base import Component, Method, MethodContext, as_size
from fastreg.methods.cutmix import cutmix
from fastreg.methods.cutout import cutout
from fastreg.methods.gaussian_noise import gaussian_noise
from fastreg.methods.join import join
from fastreg.methods.mixup import mixup
from fastreg.methods.mixup_cutmix import mixup_cutmix
from fastreg.methods.no_crop_flip import no_crop_flip
from fastreg.methods.none import none
from fastreg.methods.ood import ood_gan, ood_svhn
from fastreg.methods.rand_augment import rand_augment
from fastreg.methods.random_erasing import random_erasing
from fastreg.methods.shakedrop import shakedrop
from fastreg.methods.stochastic_depth import stochastic_depth
from fastreg.methods.trivial_augment import trivial_augment

__all__ = ["METHODS", "Method", "create", "create_method"]

METHODS: dict[str, Callable[..., Component]] = {
    build.__name__: build
    for build in (
        none,
        mixup,
        cutmix,
        cutout,
        gaussian_noise,
        shakedrop,
        adversarial,
        alp,
        ood_svhn,
        ood_gan,
        no_crop_flip,
        random_erasing,
        stochastic_depth,
        alternating_flip,
        trivial_augment,
        rand_augment,
        auto_augment_policy,
        augmix,
    )
}
"""Name -> function of (MethodContext, own parameters) that returns a Component."""

JOINED: dict[str, Callable[..., Component]] = {"mixup+cutmix": mixup_cutmix}
"""Names of two methods that have a function of their own when they are joined."""

SCOPES = ("batch", "sample")


def create_method(
    name: str,
    *,
    seed: int = 0,
    dataset: str = "imagenet",
    size: int | tuple[int, int] | None = None,
    scope: str = "batch",
    **parameters: Any,
) -> Method:
    """Create a method, or several joined by ``+``. ``methods.create`` is the same function.

    Args:
        name: A name of ``METHODS``, or several joined by ``+``. ``mixup+cutmix`` picks one of the two per batch.
        seed: Key of every draw.
        dataset: Selects the paper's defaults: ``"cifar10"`` and ``"cifar100"`` are CIFAR, all others ImageNet.
        size: Side of the images in pixels, or (height, width). Default: 32 on CIFAR, else 224.
        scope: ``"batch"`` draws one mixing weight and box per batch, as the paper; ``"sample"`` one per image.
        parameters: Parameters of the methods. A parameter goes to every joined method that takes it, or to one method
            under its name (``random_erasing_prob=0.1``).

    Returns:
        The method.

    Raises:
        InputError: A name or parameter is unknown, a value is out of range, or two methods cannot be joined.

    Source:
        Chun et al. 2020 (arXiv 2003.03879), section 3; each method's module names its own.
    """
    names = name.split("+")
    for one in names:
        if one == "ls":
            raise InputError("'ls' is not a method but a setting of the loss: use `ls` 0.1 (label_smoothing=0.1).")
        if one not in METHODS:
            raise unknown("method", one, METHODS)
    if len(set(names)) < len(names):
        raise InputError(f"method {name!r} names one method twice.")
    if scope not in SCOPES:
        raise unknown("`scope`", scope, SCOPES)
    if size is None:
        size = 32 if dataset.startswith("cifar") else 224
    context = MethodContext(seed, dataset, as_size(size), scope)
    method = join(context, [build(context, **own) for build, own in route_parameters(name, names, parameters)])
    repeat = partial(create_method, name, seed=seed, dataset=dataset, size=size, scope=scope, **parameters)
    return method._replace(recreate=repeat)


create = create_method


def route_parameters(
    name: str, names: list[str], parameters: dict[str, Any]
) -> list[tuple[Callable[..., Component], dict[str, Any]]]:
    """The functions of a joined name, each with its parameters."""
    builds = [METHODS[one] for one in names]
    for joined, build in JOINED.items():
        pair = joined.split("+")
        if set(pair) <= set(names):
            builds = [build, *(METHODS[one] for one in names if one not in pair)]
    takes = [list(inspect.signature(build).parameters)[1:] for build in builds]
    known = sorted({parameter for own in takes for parameter in own})
    # for each function: parameter, and METHOD_parameter -> parameter
    spellings = [
        {f"{prefix}{key}": key for prefix in ("", f"{build.__name__}_") for key in own}
        for build, own in zip(builds, takes)
    ]
    for parameter in parameters:
        if not any(parameter in own for own in spellings):
            common = "seed, dataset, size, scope"
            raise InputError(f"method {name!r} has no parameter {parameter!r}: it takes {', '.join([*known, common])}.")
    return [
        # METHOD_parameter is longer, so it comes last and overrides parameter
        (build, {own[key]: parameters[key] for key in sorted(parameters, key=len) if key in own})
        for build, own in zip(builds, spellings)
    ]
