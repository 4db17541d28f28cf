"""timm's and torchvision's words for what is said otherwise here, so that their command lines can be pasted.

Flags that only have another name are rows of cli/options.py; here are those with another meaning, as data.
"""

from __future__ import annotations

from typing import Any

from fastreg.errors import InputError

# field -> a word of theirs -> the settings it stands for
WORDS: dict[str, dict[str, dict[str, Any]]] = {
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
# a flag of theirs that is on or off -> what it stands for, unless the field is given itself
SWITCHES: dict[str, dict[str, Any]] = {"amp": {"precision": "auto"}, "model_ema": {"model_ema_decay": 0.9998}}
# a flag of theirs that turns a method on, where it is not 0 -> that method's page, and its parameter
PAGES = {
    "mixup": ("mixup", "alpha"),
    "cutmix": ("cutmix", "alpha"),
    "reprob": ("random_erasing", "prob"),
    "drop_path": ("stochastic_depth", "rate"),
}
MIXING = ("mixup", "cutmix")


def translate(given: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Settings of ``Config`` from settings and their words; ``epochs`` turns what they count in epochs into fractions.

    Raises InputError for a word that asks something of a method that is not trained with.
    """
    own = {key: value for key, value in given.items() if key not in _THEIRS}
    for field, words in WORDS.items():
        own |= words.get(own.get(field, ""), {})
    for switch, settings in SWITCHES.items():
        if given.get(switch):
            own = {**settings, **own}
    if "warmup_epochs" in given:
        own["warmup"] = _fraction("warmup_epochs", given["warmup_epochs"], epochs)
    if "milestones" in own:
        own["milestones"] = tuple(_fraction("milestones", at, epochs) if at >= 1 else at for at in own["milestones"])

    opened = {page: {parameter: given[flag]} for flag, (page, parameter) in PAGES.items() if given.get(flag)}
    names = [name for name in str(own.get("reg") or "none").split("+") if name != "none"]
    names += [page for page in opened if page not in names]
    mixing = [page for page in MIXING if page in names]
    for page in mixing:
        if page in opened or "mixup_prob" in given:  # theirs mix every batch, ours on CIFAR every other
            opened.setdefault(page, {})["prob"] = given.get("mixup_prob", 1.0)
    arguments = {f"{page}_{key}": value for page, values in opened.items() for key, value in values.items()}
    if "mixup_switch_prob" in given:
        arguments["switch_prob"] = given["mixup_switch_prob"]
    for flag, least in (("mixup_prob", 1), ("mixup_switch_prob", 2)):
        if flag in given and len(mixing) < least:
            raise InputError(f"--{flag.replace('_', '-')} is for --mixup {'or' if least == 1 else 'and'} --cutmix.")
    if opened:
        own["reg"] = "+".join(names)
    if arguments:
        own["reg_args"] = {**arguments, **own.get("reg_args", {})}
    return own


def _fraction(flag: str, at: float, epochs: int) -> float:
    """``at`` epochs as a fraction of the run. Raises InputError, in epochs, for what is not within it."""
    if not 0 <= at <= epochs:
        bound = f"more than the {epochs} epochs of the run" if at > epochs else "not 0 or more epochs"
        raise InputError(f"--{flag.replace('_', '-')} {at:g} is {bound}.")
    return at / epochs


_THEIRS = {*SWITCHES, *PAGES, "warmup_epochs", "mixup_prob", "mixup_switch_prob"}
