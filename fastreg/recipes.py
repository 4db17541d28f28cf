"""Training recipes: named settings for every row of the paper's tables, and short modern schedules.

A recipe is a dict of :class:`fastreg.training.Config` fields; a setting given by the user overrides it. ``milestones``,
``warmup`` and ``size_ramp`` are fractions of the run, so another number of epochs rescales the whole schedule;
``mixup_off_epoch`` is an epoch, as in timm. ``lr`` is for ``global_batch``; with another batch it scales linearly,
unless it is given.

Source: Chun et al. 2020 (arXiv 2003.03879), sections 3 and 4; its ImageNet scheme is that of Yun et al., CutMix (ICCV
2019), section 4.1.1.
"""

from __future__ import annotations

import difflib
from typing import Any

from fastreg.errors import InputError
from fastreg.published_recipes import PUBLISHED

Recipe = dict[str, Any]

_IMAGENET: Recipe = {
    "model": "resnet50",
    "epochs": 300,
    "global_batch": 256,
    "lr": 0.1,
    "sched": "step",
    "milestones": (0.25, 0.5, 0.75),
    "weight_decay": 1e-4,
    "color_jitter": 0.4,
    "lighting": 0.1,
    "size": 224,
    "eval_size": 224,
}
_CIFAR: Recipe = {
    "model": "pyramidnet200",
    "epochs": 300,
    "global_batch": 64,
    "lr": 0.25,
    "sched": "step",
    "milestones": (0.5, 0.75),
    "weight_decay": 1e-4,
    "size": 32,
    "eval_size": 32,
}
# Adversarial rows use Adam, as in the paper. The paper gives no rate: this is torch's default, on the step schedule.
_ADAM: Recipe = {"opt": "adam", "lr": 1e-3}


def _rows(base: Recipe, regs: dict[str, Recipe]) -> dict[str, Recipe]:
    return {name: {**base, **own} for name, own in regs.items()}


def _with_smoothing(*regs: str) -> dict[str, Recipe]:
    """Two rows per method, without and with label smoothing 0.1."""
    return {
        name: {"reg": reg, "ls": ls}
        for reg in regs
        for name, ls in (
            ("baseline" if reg == "none" else reg, 0.0),
            ("ls" if reg == "none" else f"{reg}+ls", 0.1),
        )
    }


_CIFAR_REGS = {
    **_with_smoothing(
        "none", "shakedrop", "cutout", "cutout+shakedrop", "mixup", "mixup+shakedrop", "cutmix", "cutmix+shakedrop"
    ),
    "alp": {"reg": "alp", "ls": 0.1, **_ADAM},
    "adversarial": {"reg": "adversarial", "ls": 0.1, **_ADAM},
    "no_crop_flip": {"reg": "no_crop_flip"},
    "gaussian_noise": {"reg": "gaussian_noise"},
    "ood_svhn": {"reg": "ood_svhn"},
    "ood_gan": {"reg": "ood_gan"},
}

PAPER: dict[str, Recipe] = {
    f"paper/{dataset}/{name}": recipe
    for dataset, rows in {
        "cifar100": _rows(_CIFAR, _CIFAR_REGS),
        "imagenet": _rows(
            _IMAGENET, _with_smoothing("none", "shakedrop", "cutout", "mixup", "cutmix", "cutmix+shakedrop")
        ),
    }.items()
    for name, recipe in rows.items()
}
"""One recipe per row of the paper: 22 on CIFAR-100 (tables 1 to 3) and 12 on ImageNet (table 4)."""

# ffcv-imagenet's ResNet-50 schedules (rn50_configs): learning rate 1.7 at a global batch of 4096, so 0.425 at 1024 by
# the linear rule. The rate peaks after 2 epochs and falls linearly to 0. Norms have no decay. Images grow from 160 to
# 192 px between the epochs below. FFCV's accuracies are at 256 px with flip averaging, fastreg's at 224 px without it.
_RAMPS = ((16, 11, 13), (24, 17, 20), (32, 23, 27), (40, 29, 34), (56, 41, 48), (88, 65, 76))  # epochs, from, to
FAST: dict[str, Recipe] = {
    f"fast/imagenet/rn50-{epochs}": {
        "model": "resnet50",
        "blurpool": True,
        "epochs": epochs,
        "global_batch": 1024,
        "lr": 0.425,
        "nesterov": False,
        "sched": "linear",
        "warmup": 2 / epochs,
        "weight_decay": 1e-4,
        "norm_weight_decay": False,
        "ls": 0.1,
        "size": 192,
        "min_size": 160,
        "size_ramp": (first / epochs, last / epochs),
        "eval_size": 224,
    }
    for epochs, first, last in _RAMPS
}
FAST["fast/cifar100/resnet18"] = {
    "model": "resnet18",
    "epochs": 30,
    "global_batch": 512,
    "lr": 0.4,
    "sched": "linear",
    "warmup": 0.2,
    "weight_decay": 5e-4,
    "norm_weight_decay": False,
    "ls": 0.1,
    "size": 32,
    "eval_size": 32,
}
FAST["fast/cifar10/resnet18"] = FAST["fast/cifar100/resnet18"]
# airbench94 (arXiv 2404.00498) has rate 11.5 and decoupled decay 0.0153 for a summed loss. The rate and decay below are
# for a mean loss at momentum 0.85. The accuracy is not yet measured.
FAST["fast/cifar10/cifarnet"] = {
    "model": "cifarnet",
    "reg": "alternating_flip",
    "epochs": 10,
    "global_batch": 1024,
    "lr": 1.5,
    "momentum": 0.85,
    "sched": "linear",
    "warmup": 0.2,
    "weight_decay": 1.3e-3,
    "norm_weight_decay": False,
    "ls": 0.2,
    "size": 32,
    "eval_size": 32,
    "shift": 2,
}
FAST["fast/cifar100/cifarnet"] = FAST["fast/cifar10/cifarnet"]

FAST |= PUBLISHED

# For two CPU cores, which train a ResNet-18 at 64 px with about 76 images per second: minutes on a small data set.
SHORT: dict[str, Recipe] = {
    "short/imagenet": {
        "model": "resnet18",
        "epochs": 8,
        "global_batch": 32,
        "lr": 0.05,
        "sched": "cosine",
        "warmup": 0.1,
        "weight_decay": 5e-4,
        "size": 64,
        "eval_size": 64,
    },
    "short/cifar": {
        "model": "resnet18",
        "epochs": 10,
        "global_batch": 32,
        "lr": 0.05,
        "sched": "cosine",
        "warmup": 0.1,
        "weight_decay": 5e-4,
        "size": 32,
        "eval_size": 32,
    },
}

ALL = {**PAPER, **FAST, **SHORT}


def resolve(name: str, dataset: str, *, gpu: bool) -> tuple[Recipe, str]:
    """The settings of a recipe by name.

    Args:
        name: A name of ``ALL``, or ``"auto"``: on a GPU the paper's scheme for the data set, on a CPU a short run.
        dataset: Name of the data set. Recipes are for CIFAR, or for ImageNet and other folders of images.
        gpu: Whether the run has a GPU.

    Returns:
        The settings by field of ``fastreg.training.Config`` (a copy), and a line that names the recipe, the reason for
        it and its main settings.

    Raises:
        InputError: The name is unknown, or the recipe is for another data set.
    """
    if name == "auto":
        family = "cifar" if dataset.startswith("cifar") else "imagenet"
        if gpu:
            chosen = "paper/cifar100/baseline" if family == "cifar" else "paper/imagenet/baseline"
            why = "the paper's full scheme, since there is a GPU"
        else:
            chosen = f"short/{family}"
            why = "a short run sized for two CPU cores, since there is no GPU"
    elif name in ALL:
        chosen, why = name, "as asked"
        made_for = name.split("/")[1]
        if dataset.startswith("cifar") != made_for.startswith("cifar"):
            raise InputError(f"`recipe` {name!r} is for {made_for}, not for {dataset}: `fastreg recipes` lists all.")
    else:
        raise unknown_recipe(name)
    recipe = ALL[chosen]
    line = (
        f"recipe {chosen} ({why}): {recipe['model']}, {recipe['size']} px, {recipe['epochs']} epochs, "
        f"batch {recipe['global_batch']}, lr {recipe['lr']:g} {recipe['sched']}"
    )
    return dict(recipe), line


def unknown_recipe(name: str, kind: str = "`recipe`") -> InputError:
    """The error for a name that no recipe has.

    Args:
        name: what was given.
        kind: what the name stands for, in the message.

    Returns:
        An InputError with the nearest names.
    """
    nearest = difflib.get_close_matches(name, ["auto", *ALL], n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
    groups = ", ".join(sorted({f"{one.rpartition('/')[0]}/..." for one in ALL}))
    return InputError(
        f"unknown {kind} {name!r}: {hint}`fastreg recipes` lists all {len(ALL)} ({groups}), auto chooses one."
    )
