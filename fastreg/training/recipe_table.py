"""The settings of the recipes: as lines for the terminal, and for the paper's rows as RECIPES.md."""

from __future__ import annotations

import textwrap
from typing import Any

from fastreg.departures import departure_table, departures, numbers
from fastreg.published_recipes import TARGETS
from fastreg.recipes import ALL, PAPER
from fastreg.training.config import Config, added_settings, to_dict
from fastreg.training.run_config import make_config

_COLUMNS = ["recipe", "model", "--reg", "--ls", "epochs", "batch", "optimizer", "rate, times 0.1 at epoch"]
_COLUMNS += ["weight decay", "pixels", "jitter, lighting", "departures", "with `--faithful`"]

# settings that apply only if another setting has a given value
_DEPENDENT: dict[str, tuple[str, Any]] = {"milestones": ("sched", "step"), "momentum": ("opt", "sgd")}
_DEPENDENT |= {"nesterov": ("opt", "sgd"), "bce_target_threshold": ("bce_loss", True), "bce_sum": ("bce_loss", True)}


def recipe_config(name: str) -> Config:
    """The settings of a recipe without overrides. Raises KeyError for an unknown name."""
    dataset = {"cifar": "cifar100"}.get(name.split("/")[1], name.split("/")[1])
    stem = "cifar" if dataset.startswith("cifar") else "imagenet"
    return Config(dataset, recipe=name, **{"stem": stem, **ALL[name]})


def recipe_settings(name: str) -> dict[str, Any]:
    """All settings of a recipe by field of ``Config``, without those of a single run or machine."""
    config = recipe_config(name)
    fields = [field for field in Config.__dataclass_fields__ if field not in _OF_A_RUN]
    found = {field: getattr(config, field) for field in fields if getattr(config, field) is not None}
    for field, (other, value) in _DEPENDENT.items():
        if found[other] != value:
            found.pop(field, None)
    for field, value in added_settings().items():
        if found.get(field) == value:  # a recipe names what it changes
            found.pop(field, None)
    if not config.reg_args:
        del found["reg_args"]
    if config.min_size is None:
        del found["size_ramp"]
    if config.model_ema_decay is None:
        found.pop("model_ema_warmup", None)
    if not (config.color_jitter or config.lighting):
        found.pop("color_clip", None)
    return found


_OF_A_RUN = {"dataset", "data_dir", "recipe", "batch_size", "grad_accum_steps", "loader", "workers"}
_OF_A_RUN |= {"on_bad_image", "order", "device", "torchcompile", "sync_bn", "deterministic", "seed", "output", "name"}
_OF_A_RUN |= {"recovery_interval", "log_interval", "profile", "log_tensorboard", "log_wandb"}


def recipe_lines(name: str) -> str:
    """A recipe's name, followed by its settings on indented lines."""
    words = (f"{field} {_shown(value)}".replace(" ", "\0") for field, value in recipe_settings(name).items())
    lines = textwrap.wrap("  ".join(words), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    target = [f"  {TARGETS[name]}"] if name in TARGETS else []
    return "\n".join([name, *lines, *target]).replace("\0", " ")


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) + "}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def recipe_table() -> str:
    """RECIPES.md: Markdown tables of all rows of ``recipes.PAPER``, and of the published recipes."""
    lines = [
        "# The paper's rows as recipes",
        "",
        "Made by `fastreg recipes --markdown`, and checked by a test. `fastreg train imagenet --recipe NAME` runs a",
        "recipe; flags override its settings. The learning rate is for the batch of all GPUs together.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * len(_COLUMNS),
    ]
    lines += [_row(name) for name in PAPER]
    lines += [
        "",
        "## Published recipes of other projects",
        "",
        "The accuracies are those that the sources report for their own code; runs of fastreg are not yet measured.",
        "",
        "| recipe | settings | source |",
        "|---|---|---|",
    ]
    for name, target in TARGETS.items():
        settings = ", ".join(f"{field} {_shown(value)}" for field, value in recipe_settings(name).items())
        lines.append(f"| `{name}` | {settings} | {target} |")
    lines += [
        "",
        "## Departures from the original code",
        "",
        "The last two columns above have the numbers of the rows below that apply to a run on one GPU, without and",
        "with `--faithful`.",
        "",
        departure_table(),
    ]
    return "\n".join(lines) + "\n"


def _departures(name: str, faithful: bool) -> str:
    """The numbers of the departures of a recipe's run on one GPU."""
    config, _ = make_config(recipe_config(name).dataset, gpu=True, recipe=name, faithful=faithful)
    arrays = config.dataset.startswith("cifar")
    used = {"loader": "resident" if arrays else "dali", "precision": "bf16", "device": "cuda"}
    found = {k: v if getattr(config, k) == "auto" else getattr(config, k) for k, v in used.items()}
    return numbers(departures({**to_dict(config), **{f"{key}_used": value for key, value in found.items()}}))


def _row(name: str) -> str:
    c = recipe_config(name)
    nesterov = "nesterov " if c.nesterov else ""
    optimizer = f"SGD, {nesterov}{c.momentum:g}" if c.opt == "sgd" else "Adam"
    drops = ", ".join(f"{c.epochs * m:g}" for m in c.milestones)
    colors = f"{c.color_jitter:g}, {c.lighting:g}" if c.color_jitter or c.lighting else ""
    cells = [f"`{name}`", c.model, c.reg, f"{c.ls:g}", f"{c.epochs}", f"{c.global_batch}", optimizer]
    cells += [
        f"{c.lr:g}: {drops}",
        f"{c.weight_decay:g}",
        f"{c.size}",
        colors,
        *(_departures(name, faithful) for faithful in (False, True)),
    ]
    return "| " + " | ".join(cells) + " |"
