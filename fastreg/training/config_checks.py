"""The values that settings may have, and checks of their combinations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.pipelines.loader_table import INTERPOLATIONS

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("step", "cosine", "linear", "poly", "constant")
CHOICES: dict[str, tuple[str | int | None, ...]] = {
    "scope": ("batch", "sample"),
    "stem": ("imagenet", "cifar"),
    "interpolation": INTERPOLATIONS,
    "sched": SCHEDULES,
    "precision": ("auto", "bf16", "fp16", "fp32"),
    "on_bad_image": ("error", "skip"),
    "order": ("random", "pages"),
    "best_of_ties": ("first", "last"),
    "sampler": ("random", "balanced"),
    "channels": (1, 3),
    "torchcompile": ("auto", "off", None, "default", "reduce-overhead", "max-autotune"),
}
# field -> (brackets, lowest, highest): a round bracket excludes the bound
RANGES: dict[str, tuple[str, float, float]] = {
    "ls": ("[]", 0, 1),
    "bce_target_threshold": ("[]", 0, 1),
    "lr": ("()", 0, math.inf),
    "epochs": ("[)", 1, math.inf),
    "batch_size": ("[)", 1, math.inf),
    "grad_accum_steps": ("[)", 1, math.inf),
    "momentum": ("[)", 0, 1),
    "weight_decay": ("[)", 0, math.inf),
    "opt_eps": ("()", 0, math.inf),
    "opt_betas": ("[)", 0, 1),
    "layer_decay": ("(]", 0, 1),
    "milestones": ("[]", 0, 1),
    "decay_rate": ("()", 0, math.inf),
    "min_lr": ("[)", 0, math.inf),
    "warmup": ("[]", 0, 1),
    "warmup_lr": ("[)", 0, math.inf),
    "cooldown": ("[)", 0, 1),
    "clip_grad": ("()", 0, math.inf),
    "model_ema_decay": ("[)", 0, 1),
    "model_ema_every": ("[)", 1, math.inf),
    "size": ("[]", 8, 4096),
    "eval_size": ("[]", 8, 4096),
    "crop_pct": ("(]", 0, 1),
    "min_size": ("[]", 8, 4096),
    "size_ramp": ("[]", 0, 1),
    "shift": ("[]", 0, 16),
    "aug_repeats": ("[]", 1, 1000),
    "color_jitter": ("[]", 0, 1),
    "lighting": ("[)", 0, math.inf),
    "mixup_off_epoch": ("[)", 0, math.inf),
    "val_share": ("()", 0, 1),
    "cache_gb": ("()", 0, math.inf),
    "workers": ("[]", 1, 1024),
    "seed": ("[]", 0, 2**63 - 1),
    "recovery_interval": ("[)", 1, math.inf),
    "log_interval": ("[)", 1, math.inf),
    "profile": ("[)", 0, math.inf),
}
COMMON = ("seed", "dataset", "size", "scope")  # parameters of methods.create that are settings themselves


def check(config: Any) -> None:
    """Check values, choices and combinations of settings.

    Raises:
        InputError: the message names the setting.
    """
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            raise unknown(f"`{name}`", str(getattr(config, name)), [str(choice) for choice in choices if choice])
    for name in RANGES:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            check_range(name, one)
    check_reg_args(config.reg_args)
    if config.name is not None and (not config.name or config.name in (".", "..") or "/" in config.name):
        raise InputError(f"`name` is {config.name!r}: give the name of one folder; `output` is the folder above it.")
    if config.val_share is not None and config.val_split is not None:
        raise InputError(f"`val_share` divides the training split, and `val_split` is {config.val_split}: give one.")
    if config.min_size is not None and config.min_size > config.size:
        raise InputError(
            f"`min_size` {config.min_size} is larger than `size` {config.size}: images grow from one to the other."
        )
    if len(config.size_ramp) != 2 or config.size_ramp[0] > config.size_ramp[1]:
        raise InputError(f"`size_ramp` is {config.size_ramp}: give two fractions of the run in rising order.")
    if config.order == "pages" and (config.aug_repeats > 1 or config.sampler == "balanced"):
        setting = "aug_repeats" if config.aug_repeats > 1 else "sampler"
        raise InputError(
            f"`{setting}` {getattr(config, setting)} shuffles image by image, and `order` pages by pages: use one of "
            "the two."
        )
    check_optimizer(config)
    check_loss(config)
    if config.pretrained and config.initial_checkpoint is not None:
        raise InputError("`pretrained` and `initial_checkpoint` are both weights to start from: give one.")
    if config.pretrained and config.stem == "cifar" and ":" not in config.model:
        raise InputError("`pretrained` weights have the imagenet `stem`, not cifar: give `stem` imagenet, or another.")
    if config.weights_key is not None and config.initial_checkpoint is None:
        raise InputError("`weights_key` is for the file of `initial_checkpoint`: give one, or leave it out.")
    if config.warmup + config.cooldown > 1:
        raise InputError(
            f"warm-up and cooldown are {config.warmup:g} and {config.cooldown:g} of the run: give at most 1 in sum."
        )


def check_optimizer(config: Any) -> None:
    """Check the name of the optimizer and the settings that depend on it.

    Raises:
        InputError: the message names the setting.
    """
    if config.opt not in OPTIMIZERS and not config.opt.startswith("timm:"):
        if _is_timms(config.opt):
            raise InputError(f"`opt` {config.opt!r} is an optimizer of timm: give timm:{config.opt}.")
        raise unknown("`opt`", config.opt, [*OPTIMIZERS, "timm:NAME"])
    if config.opt == "sgd" and config.nesterov and not config.momentum:
        raise InputError("`nesterov` needs momentum, and `momentum` is 0: give `momentum`, or turn `nesterov` off.")
    for name in ("opt_eps", "opt_betas"):
        if config.opt == "sgd" and getattr(config, name):
            raise InputError(f"`{name}` is for Adam and others, and `opt` is sgd: leave it out.")
    if config.opt in ("adam", "adamw") and len(config.opt_betas) not in (0, 2):
        raise InputError(f"`opt_betas` is {config.opt_betas}: give two numbers for {config.opt}.")
    if config.min_lr > config.lr:
        raise InputError(
            f"`min_lr` {config.min_lr:g} is more than `lr` {config.lr:g}: the rate falls from one to the other."
        )


def check_loss(config: Any) -> None:
    """Check the settings of the loss.

    Raises:
        InputError: the message names the setting.
    """
    for name in ("bce_target_threshold", "bce_sum"):
        if getattr(config, name) not in (None, False) and not config.bce_loss:
            raise InputError(f"`{name}` is for `bce_loss`: turn that on, or leave it out.")
    weights = config.class_weight
    if isinstance(weights, Mapping):
        for name, value in weights.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InputError(f"`class_weight` of {name!r} is {value!r}: give a number of at least 0.")
    elif weights not in (None, "balanced"):
        raise InputError(f"`class_weight` is {weights!r}: give balanced, or numbers by name of the class.")


def _is_timms(name: str) -> bool:
    """Whether timm is installed and has an optimizer of that name."""
    try:
        from timm.optim import list_optimizers
    except (ImportError, RuntimeError):  # torchvision that was built for another torch fails on import
        return False
    return name.removeprefix("lookahead_") in list_optimizers()


def check_range(name: str, value: float) -> None:
    """Check a number against its row of ``RANGES``.

    Raises:
        InputError: it is out of range, or not a number.
    """
    brackets, low, high = RANGES[name]
    above = value > low or (brackets[0] == "[" and value == low)
    below = value < high or (brackets[1] == "]" and value == high)
    if not (above and below):
        least = f"{'at least' if brackets[0] == '[' else 'more than'} {low:g}"
        most = f" and {'at most' if brackets[1] == ']' else 'less than'} {high:g}" if high < math.inf else ""
        raise InputError(f"`{name}` is {value:g}: give {least}{most}.")


def check_reg_args(arguments: Mapping[str, Any]) -> None:
    """Raise InputError for a method parameter that is a setting of its own, such as ``seed``."""
    if not isinstance(arguments, Mapping):
        raise InputError(f"`reg_args` is {str(arguments)[:100]}: give values by name.")
    for name in arguments:
        if name == "dataset":
            raise InputError("`reg_args` contains dataset: name the data set itself (`dataset`).")
        if name in COMMON:
            raise InputError(f"`reg_args` contains {name}: give `{name}` as a setting of its own.")
