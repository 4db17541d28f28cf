"""Methods: ``create(name, **parameters)`` gives a ``Method`` (draw, step, fields); one page per method."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.methods.adversarial import adversarial
from fastreg.methods.alp import alp
from fastreg.methods.alternating_flip import alternating_flip
from fastreg.methods.base import Component, Method, MethodContext, as_size, join
from fastreg.methods.cutmix import cutmix
from fastreg.methods.cutout import cutout
from fastreg.methods.gaussian_noise import gaussian_noise
from fastreg.methods.mixup import mixup
from fastreg.methods.mixup_cutmix import mixup_cutmix
from fastreg.methods.no_crop_flip import no_crop_flip
from fastreg.methods.none import none
from fastreg.methods.ood import ood_gan, ood_svhn
from fastreg.methods.random_erasing import random_erasing
from fastreg.methods.shakedrop import shakedrop
from fastreg.methods.stochastic_depth import stochastic_depth

__all__ = ["METHODS", "Method", "create"]

METHODS: dict[str, Callable[..., Component]] = {
    page.__name__: page
    for page in (
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
    )
}
"""Name -> page: a function of (MethodContext, its own parameters) that gives a Component."""

SCOPES = ("batch", "sample")


def create(
    name: str,
    *,
    seed: int = 0,
    dataset: str = "imagenet",
    size: int | tuple[int, int] | None = None,
    scope: str = "batch",
    **parameters: Any,
) -> Method:
    """The method called ``name``, or several joined by ``+``.

    ``dataset`` chooses the paper's defaults ("cifar10" and "cifar100" are CIFAR, all else is ImageNet); ``size``, the
    pictures' side in pixels or (height, width), defaults to 32 or 224. ``scope``: "batch" draws one mixing weight and
    box for the batch, as the paper; "sample" one for each picture. ``parameters`` are those of the pages; with several
    methods joined, each goes to every page that takes it, or to one page by its name (``random_erasing_prob=0.1``).

    Raises InputError for unknown names or parameters, values out of range, and methods that cannot be joined.
    """
    names = name.split("+")
    for part in names:
        if part == "ls":
            raise InputError("'ls' is not a method but the loss's: use --ls 0.1 (label_smoothing=0.1).")
        if part not in METHODS:
            raise unknown("method", part, METHODS)
    if len(set(names)) < len(names):
        raise InputError(f"method {name!r} names one method twice.")
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    if size is None:
        size = 32 if dataset.startswith("cifar") else 224
    context = MethodContext(seed, dataset, as_size(size), scope)
    return join(context, [page(context, **own) for page, own in route_parameters(name, names, parameters)])


def route_parameters(
    name: str, names: list[str], parameters: dict[str, Any]
) -> list[tuple[Callable[..., Component], dict[str, Any]]]:
    """The pages of a joined name, each with the parameters that it takes."""
    pages = [METHODS[part] for part in names]
    if {"mixup", "cutmix"} <= set(names):
        pages = [mixup_cutmix, *(page for page in pages if page not in (mixup, cutmix))]
    takes = [list(inspect.signature(page).parameters)[1:] for page in pages]
    known = sorted({parameter for own in takes for parameter in own})
    # by each page's names for its parameters, alone and behind its own: which parameter that is
    heard = [
        {f"{name}{key}": key for name in ("", f"{page.__name__}_") for key in own} for page, own in zip(pages, takes)
    ]
    for parameter in parameters:
        if not any(parameter in own for own in heard):
            common = "seed, dataset, size, scope"
            raise InputError(f"method {name!r} has no parameter {parameter!r}: it takes {', '.join([*known, common])}.")
    return [
        (page, {own[key]: parameters[key] for key in sorted(parameters, key=len) if key in own})  # the page's last
        for page, own in zip(pages, heard)
    ]
