"""RECIPES.md: every row of the paper with the settings that it resolves to."""

from __future__ import annotations

from fastreg.recipes import PAPER
from fastreg.training.config import Config

_COLUMNS = ["recipe", "model", "--reg", "--ls", "epochs", "batch", "optimiser", "rate, times 0.1 at epoch"]
_COLUMNS += ["weight decay", "pixels", "jitter, lighting"]


def paper_config(name: str) -> Config:
    """The settings of a row of the paper, nothing overridden."""
    dataset = name.split("/")[1]
    return Config(dataset, recipe=name, stem="cifar" if dataset.startswith("cifar") else "imagenet", **PAPER[name])


def recipe_table() -> str:
    """Markdown of all rows of ``recipes.PAPER``."""
    lines = [
        "# The paper's rows as recipes",
        "",
        "Made by `fastreg recipes --markdown`; a test holds it up to date. `fastreg train imagenet --recipe NAME` runs",
        "one, and any flag overrides its setting. The rate belongs to the batch given here, whatever the GPUs.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * len(_COLUMNS),
    ]
    return "\n".join([*lines, *(_row(name) for name in PAPER)]) + "\n"


def _row(name: str) -> str:
    c = paper_config(name)
    nesterov = "nesterov " if c.nesterov else ""
    optimiser = f"SGD, {nesterov}{c.momentum:g}" if c.opt == "sgd" else "Adam"
    drops = ", ".join(f"{c.epochs * m:g}" for m in c.milestones)
    colours = f"{c.color_jitter:g}, {c.lighting:g}" if c.color_jitter or c.lighting else ""
    cells = [f"`{name}`", c.model, c.reg, f"{c.ls:g}", f"{c.epochs}", f"{c.global_batch}", optimiser]
    cells += [f"{c.lr:g}: {drops}", f"{c.weight_decay:g}", f"{c.size}", colours]
    return "| " + " | ".join(cells) + " |"
