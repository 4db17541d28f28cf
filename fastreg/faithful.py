"""``faithful``: train as the paper's original code did, where that is known.

The settings below, and the parameters that a method names as ``original``, replace the defaults of a recipe of the
paper. docs/departures.md lists what each of them changes, and which departures remain.

Source: CutMix-PyTorch (train.py, utils.py) on 2 GPUs for CIFAR and 4 for ImageNet; Lee et al., Confident_classifier
(run_joint_confidence.py); the ShakeDrop authors' code with DataParallel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastreg import methods
from fastreg.errors import InputError
from fastreg.recipes import PAPER

SETTINGS: dict[str, Any] = {
    "precision": "fp32",
    "tf32": False,
    "color_clip": False,
    "drop_last": False,
    "best_of_ties": "last",
}
"""Field of ``Config`` -> the value of the original code."""

PER_GPU = {"cifar": 32, "imagenet": 64}
"""Images of a GPU and step in the original code, over which batch norm normalizes."""


def original_recipe(dataset: str, recipe: str) -> str:
    """The recipe of a faithful run: the given one, or for "auto" the paper's baseline of the data set.

    Raises:
        InputError: the recipe is not of the paper.
    """
    if recipe == "auto":
        return f"paper/{'cifar100' if dataset.startswith('cifar') else 'imagenet'}/baseline"
    if recipe not in PAPER:
        raise InputError(f"`faithful` trains the paper's recipes as their code did, and {recipe} is none of them.")
    return recipe


def original_settings(
    dataset: str, reg: str, global_batch: int, world: int, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of ``Config`` that the original code had, under those that are given.

    Args:
        dataset: name of the data set.
        reg: names of methods, joined by ``+``.
        global_batch: images per step.
        world: number of ranks.
        given: settings that come before the original ones.

    Returns:
        Settings by field. The micro-batches are those of the original GPUs, if they divide the global batch.
    """
    cifar = dataset.startswith("cifar")
    found = dict(SETTINGS) if cifar else {**SETTINGS, "loader": "folder"}
    own = given.get("reg_args") or {}
    original = methods.create(reg, dataset=dataset).original
    arguments = {**{k: v for k, v in original.items() if not any(k.endswith(f"_{one}") for one in own)}, **own}
    # every micro-batch updates a GAN that is trained jointly, and the original code updates it once per batch
    joint = methods.create(reg, dataset=dataset, **arguments).networks is not None
    share = global_batch // world if joint else PER_GPU["cifar" if cifar else "imagenet"]
    own_batch = "batch_size" in given or "grad_accum_steps" in given
    if not own_batch and share and global_batch % (share * world) == 0:
        found["grad_accum_steps"] = global_batch // (share * world)
    return {**found, **{k: given[k] for k in found if k in given}, **({"reg_args": arguments} if arguments else {})}
