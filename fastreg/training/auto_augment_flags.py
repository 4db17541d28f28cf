"""Flags of automatic augmentation of timm, such as ``--aa rand-m9``, and torchvision, ``--auto-augment ta_wide``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fastreg.errors import InputError, unknown

# section of timm's string: parameter of the method, and its type
_RAND: dict[str, tuple[str, Callable[[str], Any]]] = {
    "m": ("magnitude", int),
    "n": ("num_ops", int),
    "p": ("prob", float),
    "mstd": ("mstd", float),
    "mmax": ("magnitude_max", int),
    "inc": ("inc", lambda text: bool(int(text))),
}
_AUGMIX: dict[str, tuple[str, Callable[[str], Any]]] = {
    "m": ("severity", int),
    "w": ("width", int),
    "d": ("depth", int),
    "a": ("alpha", float),
    "mstd": ("mstd", float),
}
_POLICIES = ("original", "originalr", "v0", "v0r", "3a")
_TORCHVISION = ("ra", "ta_wide", "imagenet", "cifar10", "augmix")
FLAGS = ("aa", "auto_augment", "ra_magnitude", "augmix_severity", "aug_splits", "jsd_loss", "ra_sampler", "ra_reps")
SPLITS = 3  # of methods/jsd.py, which needs torch


def method_of_flags(given: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The method that flags turn on, and its parameters; None without such a flag.

    Raises:
        InputError: a value is unknown, has no counterpart here, or belongs to another flag.
    """
    if "aa" in given and "auto_augment" in given:
        raise InputError("`aa` and `auto_augment` both choose a method of automatic augmentation: give one.")
    for flag, value in (("ra_magnitude", "ra"), ("augmix_severity", "augmix")):
        if flag in given and given.get("auto_augment") != value:
            raise InputError(f"`{flag}` is for `auto_augment` {value}: give both.")
    jsd = _jsd(given)
    if "aa" in given:
        method, parameters = parse_timm(str(given["aa"]))
    elif "auto_augment" in given:
        method, parameters = _of_torchvision(given)
    else:
        return None
    if jsd or method == "augmix":
        parameters["jsd"] = jsd
    return method, parameters


def repeats_of_flags(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, int]:
    """The repeats of ``--ra-sampler``, or 1 for timm's default of ``--aug-repeats``, 0.

    Raises:
        InputError: ``--ra-reps`` without ``--ra-sampler``.
    """
    if "ra_reps" in given and not given.get("ra_sampler"):
        raise InputError("`ra_reps` is for `ra_sampler`: give both.")
    if given.get("ra_sampler") and "aug_repeats" not in own:
        return {"aug_repeats": given.get("ra_reps", 3)}
    return {"aug_repeats": 1} if own.get("aug_repeats") == 0 else {}


def _jsd(given: Mapping[str, Any]) -> bool:
    """Whether the flags ask for timm's loss of three splits."""
    splits, loss = given.get("aug_splits", 0), given.get("jsd_loss", False)
    if splits not in (0, SPLITS):
        raise InputError(f"`aug_splits` is {splits}: give {SPLITS}, the views of an image that `jsd_loss` compares.")
    if bool(splits) != bool(loss):
        one, other = ("aug_splits", "jsd_loss") if splits else ("jsd_loss", "aug_splits")
        raise InputError(f"`{one}` needs `{other}`: give both (for repeats without that loss give `aug_repeats`).")
    if loss and "aa" not in given and "auto_augment" not in given:
        raise InputError("`jsd_loss` compares views of automatic augmentation: give `aa`, or `reg` augmix alone.")
    return bool(loss)


def _of_torchvision(given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """torchvision's training script interpolates bilinearly, and its AugMix takes all operations."""
    name = str(given["auto_augment"])
    if name == "ra":
        return "rand_augment", {"magnitude": given.get("ra_magnitude", 9), "interpolation": "bilinear"}
    if name == "ta_wide":
        return "trivial_augment", {"interpolation": "bilinear"}
    if name == "augmix":
        return "augmix", {"severity": given.get("augmix_severity", 3), "all_ops": True}
    if name not in _TORCHVISION:
        raise unknown("`auto_augment`", name, _TORCHVISION)
    return "auto_augment_policy", {"policy": name, "interpolation": "bilinear"}


def parse_timm(text: str) -> tuple[str, dict[str, Any]]:
    """The method and parameters of a string such as ``rand-m9-mstd0.5-inc1`` or ``augmix-m5-w4-d2``.

    Raises:
        InputError: timm's AutoAugment policies, sections with operations that fastreg lacks, and unknown sections.
    """
    kind, *sections = text.split("-")
    if kind in _POLICIES:
        raise InputError(
            f"`aa` {text}: fastreg has AutoAugment's policies with torchvision's ranges, and timm's differ: give "
            "`auto_augment` imagenet, or `aa` rand-m9-mstd0.5-inc1."
        )
    if kind not in ("rand", "augmix"):
        raise unknown("`aa`", text, ("rand-m9-mstd0.5-inc1", "augmix-m3-w3"))
    table = _RAND if kind == "rand" else _AUGMIX
    found: dict[str, Any] = {"magnitude": 10} if kind == "rand" else {}
    for section in sections:
        if kind == "rand" and section == "tweights":
            found["weights"] = True
            continue
        if kind == "rand" and section.startswith("t"):
            raise InputError(
                f"`aa` {text}: the set {section[1:]} has a Gaussian blur, which fastreg lacks: leave it out."
            )
        if kind == "augmix" and section.startswith("b"):
            raise InputError(f"`aa` {text}: {section} blends images of 8 bits chain by chain, and fastreg mixes once.")
        key, value = re.fullmatch(r"([a-z]*)(.*)", section).groups()  # type: ignore[union-attr]
        if key not in table:
            raise InputError(f"`aa` {text}: unknown section {section!r}; known are {', '.join(table)} and a number.")
        parameter, convert = table[key]
        try:
            found[parameter] = convert(value)
        except ValueError:
            raise InputError(f"`aa` {text}: {key} is {value!r}: give a number, such as {key}1.") from None
    return ("rand_augment" if kind == "rand" else "augmix"), {"law": "timm", **found}
