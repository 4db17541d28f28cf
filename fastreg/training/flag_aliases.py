"""Names and values of timm and torchvision, translated into settings, so that their command lines can be pasted.

Flags that only have another name are rows of cli/options.py. The tables below are for flags with another meaning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.methods.base import number
from fastreg.methods.random_erasing import MODES
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
# a flag of timm -> the argument of timm's models that it means; for other models drop_path is a method
TIMM_ARGUMENTS = {"drop": "drop_rate", "drop_path": "drop_path_rate"}


def translate(given: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Translate names and values of timm and torchvision into settings of ``Config``.

    Args:
        given: settings and foreign names with their values.
        base: the settings of the recipe or run that ``given`` overrides, with its ``epochs``. Values in epochs become
            fractions of the run.

    Returns:
        Settings of ``Config``.

    Raises:
        InputError: a value out of range or for a method that is not used, or an epoch outside the run.
    """
    own = {key: value for key, value in given.items() if key not in FOREIGN}
    for field, values in VALUES.items():
        own |= values.get(own.get(field, ""), {})
    for switch, settings in SWITCHES.items():
        if given.get(switch) and next(iter(settings)) not in own:
            own = {**settings, **own}
    own |= auto_augment_flags.repeats_of_flags(own, given)
    given = {**given, **_of_timm_model(own, given, base)}
    own |= _schedule(given, base)
    if "val_resize_size" in given:
        side = own.get("eval_size", own.get("size", base.get("eval_size", 224)))
        own["crop_pct"] = side / number("val_resize_size", given["val_resize_size"], side)
    opened = {
        method: {parameter: number(flag, given[flag], 0, most)}
        for flag, (method, parameter, most) in METHODS.items()
        if given.get(flag)
    }
    for flag in ("mixup_prob", "mixup_switch_prob"):
        if flag in given:
            number(flag, given[flag], 0, 1)
    of_recipe = str(base.get("reg", "none")).split("+")
    for flag, (method, *_) in METHODS.items():
        if given.get(flag) == 0 and "reg" not in own and method in of_recipe:
            raise InputError(
                f"`{flag}` 0 turns {method} off, and the recipe has `reg` {base['reg']}: give `reg` without it."
            )
    names = [name for name in str(own.get("reg") or "none").split("+") if name != "none"]
    automatic = auto_augment_flags.method_of_flags(given)
    if automatic is not None:
        opened = {automatic[0]: automatic[1], **opened}
        own = {"color_jitter": 0.0, "lighting": 0.0, **own}  # neither package has them beside it
    names += [method for method in opened if method not in names]
    mixing = [method for method in MIXING if method in (names or of_recipe)]
    for method in mixing if names else ():
        if method in opened or "mixup_prob" in given:  # timm and torchvision mix every batch, fastreg half on CIFAR
            opened.setdefault(method, {})["prob"] = given.get("mixup_prob", 1.0)
    arguments = {f"{method}_{key}": value for method, values in opened.items() for key, value in values.items()}
    if not names and "mixup_prob" in given:
        arguments |= {f"{method}_prob": given["mixup_prob"] for method in mixing}
    if "remode" in given and given.get("reprob") != 0:
        if given["remode"] not in MODES:
            raise unknown("`remode`", str(given["remode"]), MODES)
        if "random_erasing" not in (names or of_recipe):
            raise InputError("`remode` is for random erasing: give `reprob`.")
        arguments["random_erasing_mode"] = given["remode"]
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


def _of_timm_model(own: dict[str, Any], given: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Put the rates of ``TIMM_ARGUMENTS`` into ``own`` for a model of timm; those flags then have no other meaning."""
    model = str(own.get("model", base.get("model", "")))
    same_model = model == base.get("model", model)
    kept = base.get("model_kwargs", {}) if same_model else {}
    rates = {
        name: number(flag, given[flag], 0, 1)
        for flag, name in TIMM_ARGUMENTS.items()
        if given.get(flag) or (flag in given and name in kept)  # 0 turns off a rate of the recipe
    }
    if not model.startswith("timm:"):
        if rates.get("drop_rate"):
            raise InputError(f"`drop` is for models of timm, not for {model}: give `model_kwargs`.")
        return {}
    if rates:
        own["model_kwargs"] = {**kept, **rates, **own.get("model_kwargs", {})}
    return dict.fromkeys(TIMM_ARGUMENTS)


def _schedule(given: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a schedule whose flags are in epochs."""
    own: dict[str, Any] = {}
    epochs = max(int(given.get("epochs") or base["epochs"]), 1)
    warmup = given.get("warmup_epochs", 0)
    before = math.ceil(warmup) if given.get("warmup_prefix") else 0
    if "cooldown_epochs" in given or before:  # timm lengthens the run by both
        after = int(number("cooldown_epochs", given.get("cooldown_epochs", 0), 0))
        if "epochs" not in given:
            epochs = round(epochs * (1 - base.get("cooldown", 0.0)))
        epochs += before + after
        own |= {"epochs": epochs, "cooldown": after / epochs}
    if "warmup_epochs" in given:
        own["warmup"] = _fraction("warmup_epochs", warmup, epochs)
    if "lr_warmup_decay" in given:
        if "lr" not in given:
            raise InputError("`lr_warmup_decay` is a factor of the learning rate: give `lr`, or `warmup_lr` alone.")
        own["warmup_lr"] = number("lr_warmup_decay", given["lr_warmup_decay"], 0, 1) * given["lr"]
    if given.get("lr_warmup_method", "linear") != "linear":
        raise InputError(f"`lr_warmup_method` is {given['lr_warmup_method']!r}: the warm-up is linear.")
    at = given.get("milestones", ())
    if "decay_epochs" in given:
        every = number("decay_epochs", given["decay_epochs"], 0)
        if not every:
            raise InputError("`decay_epochs` is 0: give more than 0 epochs.")
        at = [every * k for k in range(1, math.ceil((epochs - before) / every))]
        own["milestones"] = ()
    if at:
        own["milestones"] = tuple(
            _fraction("milestones", one + before, epochs) if one >= 1 or "decay_epochs" in given else one for one in at
        )
    return own


def _fraction(name: str, at: float, epochs: int) -> float:
    """``at`` epochs as a fraction of the run. Raises InputError for an epoch outside the run."""
    if not 0 <= at <= epochs:
        bound = f"more than the {epochs} epochs of the run" if at > epochs else "not 0 or more epochs"
        raise InputError(f"`{name}` {at:g} is {bound}.")
    return at / epochs


FOREIGN = {*SWITCHES, *METHODS, *TIMM_ARGUMENTS, "warmup_epochs", "warmup_prefix", "cooldown_epochs", "decay_epochs"}
FOREIGN |= {"lr_warmup_decay", "lr_warmup_method", "mixup_prob", "mixup_switch_prob", "remode"}
FOREIGN |= {"val_resize_size"}
FOREIGN |= {"sched_on_updates"}  # always so: the rate changes with each step
FOREIGN |= {*auto_augment_flags.FLAGS}
