"""Names and values of timm and torchvision, translated into settings, so that their command lines can be pasted.

Flags that only have another name are rows of cli/options.py. The tables below are for flags with another meaning.
"""

from __future__ import annotations

import math
from typing import Any

from fastreg.errors import InputError
from fastreg.methods.base import number
from fastreg.training import auto_augment_flags

# setting -> a value of timm or torchvision -> the settings that it means
VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "sched": {
        "cosineannealinglr": {"sched": "cosine"},
        "multistep": {"sched": "step"},
        "steplr": {"sched": "step"},
    },
    "opt": {
        "momentum": {"opt": "sgd", "nesterov": False},
        "nesterov": {"opt": "sgd", "nesterov": True},
        "sgd_nesterov": {"opt": "sgd", "nesterov": True},
    },
    "precision": {"bfloat16": {"precision": "bf16"}, "float16": {"precision": "fp16"}},
    "scope": {"elem": {"scope": "sample"}},
    "torchcompile": {"inductor": {"torchcompile": "default"}},
}
# a switch of timm or torchvision -> the settings that it means, unless the first of them is given as well
SWITCHES: dict[str, dict[str, Any]] = {
    "amp": {"precision": "auto"},
    "model_ema": {"model_ema_decay": 0.9998, "model_ema_warmup": True},
}
# a flag of timm or torchvision that turns a method on unless it is 0 -> the method, its parameter and the largest value
METHODS = {
    "mixup": ("mixup", "alpha", math.inf),
    "cutmix": ("cutmix", "alpha", math.inf),
    "reprob": ("random_erasing", "prob", 1),
    "drop_path": ("stochastic_depth", "rate", 0.999),
}
MIXING = ("mixup", "cutmix")


def translate(given: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Translate names and values of timm and torchvision into settings of ``Config``.

    Args:
        given: settings and foreign names with their values.
        epochs: length of the run; turns values in epochs into fractions of the run.

    Returns:
        Settings of ``Config``.

    Raises:
        InputError: a value out of range or for a method that is not used, or an epoch outside the run.
    """
    own = {key: value for key, value in given.items() if key not in _FOREIGN}
    for field, values in VALUES.items():
        own |= values.get(own.get(field, ""), {})
    for switch, settings in SWITCHES.items():
        if given.get(switch) and next(iter(settings)) not in own:
            own = {**settings, **own}
    if "ra_reps" in given and not given.get("ra_sampler"):
        raise InputError("`ra_reps` is for `ra_sampler`: give both.")
    if given.get("ra_sampler") and "aug_repeats" not in own:
        own["aug_repeats"] = given.get("ra_reps", 3)
    if own.get("aug_repeats") == 0:  # timm's default
        own["aug_repeats"] = 1
    if "warmup_epochs" in given:
        own["warmup"] = _fraction("warmup_epochs", given["warmup_epochs"], epochs)
    if "milestones" in own:
        own["milestones"] = tuple(_fraction("milestones", at, epochs) if at >= 1 else at for at in own["milestones"])

    opened = {
        method: {parameter: number(flag, given[flag], 0, most)}
        for flag, (method, parameter, most) in METHODS.items()
        if given.get(flag)
    }
    for flag in ("mixup_prob", "mixup_switch_prob"):
        if flag in given:
            number(flag, given[flag], 0, 1)
    names = [name for name in str(own.get("reg") or "none").split("+") if name != "none"]
    automatic = auto_augment_flags.method_of_flags(given)
    if automatic is not None:
        opened = {automatic[0]: automatic[1], **opened}
        own = {"color_jitter": 0.0, "lighting": 0.0, **own}  # neither package has them beside it
    names += [method for method in opened if method not in names]
    mixing = [method for method in MIXING if method in names]
    for method in mixing:
        if method in opened or "mixup_prob" in given:  # timm and torchvision mix every batch, fastreg half on CIFAR
            opened.setdefault(method, {})["prob"] = given.get("mixup_prob", 1.0)
    arguments = {f"{method}_{key}": value for method, values in opened.items() for key, value in values.items()}
    if "mixup_switch_prob" in given:
        arguments["switch_prob"] = given["mixup_switch_prob"]
    if "mixup_prob" in given and not mixing:
        raise InputError("`mixup_prob` is for `mixup` or `cutmix`: give one of them.")
    if "mixup_switch_prob" in given and len(mixing) < 2:
        raise InputError("`mixup_switch_prob` is for `mixup` and `cutmix` together: give both.")
    if opened:
        own["reg"] = "+".join(names)
    if arguments:
        own["reg_args"] = {**arguments, **own.get("reg_args", {})}
    return own


def _fraction(name: str, at: float, epochs: int) -> float:
    """``at`` epochs as a fraction of the run. Raises InputError for an epoch outside the run."""
    if not 0 <= at <= epochs:
        bound = f"more than the {epochs} epochs of the run" if at > epochs else "not 0 or more epochs"
        raise InputError(f"`{name}` {at:g} is {bound}.")
    return at / epochs


_FOREIGN = {*SWITCHES, *METHODS, "warmup_epochs", "mixup_prob", "mixup_switch_prob", "ra_sampler", "ra_reps"}
_FOREIGN |= {*auto_augment_flags.FLAGS}
