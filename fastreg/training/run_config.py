"""Settings of a new or a resumed run: those of a recipe or of the run, overridden."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.faithful import original_recipe, original_settings
from fastreg.models.own import confirm_own, is_own
from fastreg.recipes import resolve
from fastreg.runs import stored_data_dir
from fastreg.training.config import Config, to_dict
from fastreg.training.config_checks import check_reg_args
from fastreg.training.flag_aliases import translate


def make_config(
    dataset: str, *, gpu: bool, world: int = 1, settings: Mapping[str, Any] | None = None, **overrides: Any
) -> tuple[Config, list[str]]:
    """Settings of a new run: those of a recipe, overridden.

    A given batch without a given ``lr`` scales the recipe's learning rate linearly.

    Args:
        dataset: name of a data set to train on.
        gpu: whether the run uses a GPU; recipe "auto" depends on it.
        world: number of ranks, which share the recipe's global batch.
        settings: those of a file (config_file.py). With ``global_batch`` they belong to the recipe, without it they are
            overrides.
        overrides: fields of :class:`Config`, or names of timm and torchvision (flag_aliases.py). None means not given.
            ``faithful=True`` sets what the original code had (faithful.py), unless it is given.

    Returns:
        The settings, and messages that name the recipe and the changes to it.

    Raises:
        InputError: an unknown name, a value out of range, or settings that contradict each other.
    """
    from fastreg import methods

    check_dataset(dataset)
    given = {key: value for key, value in overrides.items() if value is not None}
    faithful = given.pop("faithful", False)
    if faithful:
        given["recipe"] = original_recipe(dataset, given.get("recipe", (settings or {}).get("recipe", "auto")))
    stored = {key: value for key, value in (settings or {}).items() if key != "dataset"}
    if "global_batch" not in stored:
        given, stored = {**stored, **given}, {}
    if "recipe" in given and stored.get("recipe", given["recipe"]) != given["recipe"]:
        raise InputError(
            f"`recipe` {given['recipe']} and the file's recipe {stored['recipe']} contradict each other: give one."
        )
    recipe, message = resolve(given.get("recipe", stored.get("recipe", "auto")), dataset, gpu=gpu)
    recipe |= translate(stored, {**recipe, **stored})
    messages = [f"{message}; settings of a file"] if settings else [message]
    given = translate(given, recipe)
    base = {"dataset": dataset, "stem": "cifar" if dataset.startswith("cifar") else "imagenet", **recipe}
    reg = str(given.get("reg") or recipe.get("reg", "none"))
    if reg == recipe.get("reg"):
        given["reg_args"] = {**recipe.get("reg_args", {}), **given.get("reg_args", {})}
    else:
        base["reg_args"] = {}  # the recipe's are for its own methods
    if given.get("model", recipe["model"]) == recipe["model"]:
        given["model_kwargs"] = {**recipe.get("model_kwargs", {}), **given.get("model_kwargs", {})}
    elif recipe.get("model_kwargs"):
        base["model_kwargs"] = {}
        messages.append(f"model_kwargs {recipe['model_kwargs']} of the recipe are for {recipe['model']} only")
    if faithful:
        original = original_settings(dataset, reg, recipe["global_batch"], world, given)
        given |= original
        what = ", ".join(f"{key} {value}" for key, value in original.items())
        messages.append(f"faithful to the original code: {what}; docs/departures.md lists what remains")
    check_reg_args(given.get("reg_args", {}))
    method = methods.create(reg, dataset=dataset, **given.get("reg_args", {}))
    if method.optimizer and "opt" not in given and method.optimizer != recipe.get("opt"):
        given["opt"] = method.optimizer
        messages.append(f"{method.name} is trained with {method.optimizer}, as in its source; opt sgd overrides it")
    if given.get("opt", "sgd") != "sgd" and recipe.get("opt", "sgd") == "sgd" and "lr" not in given:
        if given["opt"].startswith("timm:"):
            raise InputError(f"`opt` {given['opt']} needs `lr`: the recipe's rate {recipe['lr']:g} is for sgd.")
        base["lr"] = 1e-3  # torch's default, since the recipe's rate is for SGD
    if "size" in given and "eval_size" not in given:
        base["eval_size"] = given["size"]
    if "size" in given and base.get("min_size") and "min_size" not in given:
        base["min_size"] = 8 * max(round(base["min_size"] * given["size"] / base["size"] / 8), 1)
        messages.append(f"images grow from {base['min_size']} to {given['size']} px, in the recipe's proportion")
    if given.get("momentum") == 0 and "nesterov" not in given:
        base["nesterov"] = False
    return _with_batch(base, given, world, messages, "recipe")


def continue_config(
    dataset: str, run: Mapping[str, Any], *, gpu: bool, world: int = 1, **overrides: Any
) -> tuple[Config, list[str]]:
    """Settings of a resumed run: those of the run, overridden.

    Another recipe brings all its settings. If neither ``batch_size`` nor ``grad_accum_steps`` is given, the ranks share
    the run's global batch in micro-batches of the run's size, or in smaller ones if that is not possible.

    Args:
        dataset: the run's data set.
        run: the run's config.json.
        gpu: whether the run uses a GPU.
        world: number of ranks.
        overrides: as in :func:`make_config`.

    Returns:
        The settings, and messages.

    Raises:
        InputError: another data set, an unknown name, a value out of range, a batch that cannot be shared, or missing
            data of the run.
    """
    check_dataset(dataset)
    base = {name: value for name, value in run.items() if name in Config.__dataclass_fields__}
    if base.get("dataset") != dataset:
        raise InputError(f"the run to resume trains on {base.get('dataset')}, not on {dataset}: give its data set.")
    try:
        base = to_dict(Config(**base))
    except (TypeError, AttributeError, RecursionError) as error:
        why = str(error).split("\n")[0][:200]
        raise InputError(f"the run's config.json has a value of a wrong type ({why}): put back a copy.") from None
    given = {key: value for key, value in overrides.items() if value is not None}
    if given.pop("faithful", False):
        raise InputError("`faithful` is for a new run, and a resumed run keeps its settings: leave it out.")
    if is_own(base["model"]):
        confirm_own(base["model"], given.get("model"), "the run to resume")
    if "data_dir" not in given:
        base["data_dir"] = stored_data_dir(run)
    messages = ["settings: those of the resumed run"]
    if given.get("recipe", base["recipe"]) != base["recipe"]:
        recipe, message = resolve(given["recipe"], dataset, gpu=gpu)
        base |= recipe
        messages.append(message)
    elif not given.keys() & {"batch_size", "grad_accum_steps"}:
        share = base["global_batch"] // world
        least = max(math.ceil(share / base["batch_size"]), 1)
        base["grad_accum_steps"] = next((k for k in range(least, share + 1) if share % k == 0), 1)
    given = translate(given, base)
    return _with_batch({**base, "batch_size": None}, given, world, messages, "run")


def check_dataset(name: str) -> None:
    """Raise InputError for an unknown data set, or for one that is not for training."""
    from fastreg.pipelines import DATASETS

    if name not in DATASETS and ("/" in name or os.path.isdir(name)):
        raise InputError(
            f"unknown data set {name!r}: for a folder of images give `dataset` folder and `data_dir` {name}."
        )
    if name not in DATASETS:
        raise unknown("data set", name, [one for one in DATASETS if one != "svhn"])
    if name == "svhn":
        raise InputError("svhn is the out-of-distribution set of ood_svhn: train on imagenet, cifar100 or cifar10.")


def _with_batch(
    base: dict[str, Any], given: dict[str, Any], world: int, messages: list[str], owner: str
) -> tuple[Config, list[str]]:
    """``base`` (the settings of a recipe or run: ``owner``) overridden by ``given``, with the batch of each rank."""
    config = Config(**{**base, **given})
    share = world * config.grad_accum_steps
    if config.batch_size is None:
        if config.global_batch % share:
            raise InputError(
                f"the {owner}'s batch of {config.global_batch} does not divide by {world} processes x "
                f"{config.grad_accum_steps} accumulation steps: give `batch_size`."
            )
        config.batch_size = config.global_batch // share
    real = config.batch_size * share
    if real != config.global_batch:
        if "lr" not in given:
            for name in ("lr", "min_lr", "warmup_lr"):
                if name not in given and getattr(config, name):
                    setattr(config, name, getattr(config, name) * real / config.global_batch)
            messages.append(
                f"learning rate {config.lr:g}: the {owner}'s, scaled from batch {config.global_batch} to {real}"
            )
        config.global_batch = real
    changed = {k: v for k, v in given.items() if k in base and base[k] != v and k not in ("dataset", "recipe")}
    changed |= {k: f"of {len(v)} names" for k, v in changed.items() if isinstance(v, dict) and len(v) > 8}
    if changed:
        messages.append("flags override: " + ", ".join(f"{k} {v}" for k, v in changed.items()))
    return config, messages
