"""``--seeds``: one run per seed, in turn, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastreg.errors import InputError
from fastreg.training.config import Config
from fastreg.training.config_checks import check_range
from fastreg.training.resume import default_name


def parse_seeds(text: str) -> list[int]:
    """The seeds of a text such as ``0,1,2``.

    Raises:
        InputError: a word that is no seed, or a seed that is named twice.
    """
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"`seeds` is {text}: give whole numbers joined by commas, such as 0,1,2.") from None
    if len(set(seeds)) < len(seeds):
        raise InputError(f"`seeds` is {text}: it names one seed twice.")
    for seed in seeds:
        check_range("seed", seed)
    return seeds


def of_seeds(config: Config, seeds: Sequence[int]) -> list[Config]:
    """The settings of one run per seed, named ``NAME-s0``, ``NAME-s1`` ..."""
    base = config.name or default_name(config)
    return [replace(config, seed=seed, name=f"{base}-s{seed}") for seed in seeds]
