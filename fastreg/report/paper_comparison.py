"""The training of a run compared with its paper row: the settings that differ from the row's recipe.

The paper trained in float32, on pixels decoded by Pillow and on whole training sets. These values are expected where a
recipe leaves a choice. A value of the original code (faithful.py) is no difference either. What a recipe
itself leaves different from that code is in departures.py.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from fastreg import methods
from fastreg.departures import PIXELS
from fastreg.errors import InputError
from fastreg.faithful import SETTINGS
from fastreg.recipes import PAPER
from fastreg.report import paper_rows
from fastreg.training.config import Config, added_settings
from fastreg.training.recipe_table import recipe_config

# setting that is not compared -> the reason
FREE = {
    "data_dir": "a path; the number of training images is compared",
    "recipe": "a name; its settings are compared one by one",
    "batch_size": "a share of the global batch; too few images for batch norm are named",
    "grad_accum_steps": "a share of the global batch",
    "workers": "batches do not depend on it",
    "device": "the precision and the loader that it was used with are compared",
    "channels_last": "a memory layout",
    "torchcompile": "the same arithmetic",
    **{
        field: "both values are a row's: the recipe's, and the original code's; named among the departures"
        for field in SETTINGS
        if field != "precision"
    },
    "deterministic": "the same arithmetic",
    "seed": "another draw of the same run",
    "recovery_interval": "checkpoints do not change a run",
    "log_interval": "logs do not change a run",
    "profile": "a trace does not change a run",
    "log_tensorboard": "logs do not change a run",
    "log_wandb": "logs do not change a run",
    **dict.fromkeys(("train_split", "val_split"), "a path; the number of training images is compared"),
    **dict.fromkeys(("image_key", "label_key"), "a name of the data's files"),
    **dict.fromkeys(("cache_dir", "cache_gb"), "batches do not depend on it"),
    "output": "a path",
    "name": "a name",
}
# setting -> the setting that it depends on, and a test of that setting's value: true if the first has an effect
DEPENDENT: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "milestones": ("sched", lambda sched: sched == "step"),
    "momentum": ("opt", lambda opt: opt == "sgd"),
    "nesterov": ("opt", lambda opt: opt == "sgd"),
    "size_ramp": ("min_size", lambda size: size is not None),
    "bce_target_threshold": ("bce_loss", bool),
    "bce_sum": ("bce_loss", bool),
    "model_ema_warmup": ("model_ema_decay", lambda decay: decay is not None),
}
USED = {"precision": "precision_used", "loader": "loader_used"}  # the resolved value of "auto"
N_TRAIN = {"imagenet": 1_281_167, "cifar100": 50_000}
LEAST_BATCH = 32  # images per GPU, over which the original code normalizes batches
# parameters whose default is chosen by the method
_CHOSEN: dict[tuple[str, str], Callable[[Config], Any]] = {
    ("cutout", "length"): lambda config: config.size // 2,
    ("cutmix", "prob"): lambda config: 0.5 if config.dataset.startswith("cifar") else 1.0,
}
_UNKNOWN = object()


def recipe(training: Mapping[str, Any]) -> str | None:
    """The name of the paper recipe with a run's data set, methods and label smoothing; None without one."""
    if "reg" not in training:
        return None  # unknown methods
    for name in PAPER:
        row = _reference(name)
        own = (frozenset(row.reg.split("+")), row.ls > 0)
        if row.dataset == training.get("dataset") and paper_rows.has_methods(training, *own):
            return name
    return None


@cache
def _reference(name: str) -> Config:
    """The settings of a recipe, with the paper's precision."""
    config = recipe_config(name)
    config.precision = "fp32"
    return config


def training_differences(training: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """The settings in which a run differs from the recipe of its paper row.

    Args:
        training: the run's settings, as in config.json.
        rows: the rows of its log.

    Returns:
        ``lr 2 instead of 0.1``, one for each setting; unknown settings are listed last. Empty without a paper row.
    """
    name = recipe(training)
    if name is None:
        return []
    reference = _reference(name)
    found, unknown = [], []
    training = {**added_settings(), **training}
    for field in Config.__dataclass_fields__:
        if field in FREE or field in ("reg", "reg_args") or not _has_effect(field, training):
            continue
        expected, given = getattr(reference, field), _given(training, field)
        if given is _UNKNOWN:
            unknown.append(field)
        elif not _equal(field, given, expected):
            found.append(f"{field} {_text(given)} instead of {_text(PIXELS[0] if field == 'loader' else expected)}")
    found += _reg_args(training, reference)
    found += _batch_norm(training)
    found += _n_train(training, reference.dataset)
    unknown += [key for key in ("reg_args", "n_train") if training.get(key) is None]
    trained = [row["epoch"] + 1 for row in rows if row.get("kind") == "epoch" and isinstance(row.get("epoch"), int)]
    if trained and max(trained) < training.get("epochs", 0):
        found.append(f"stopped after {max(trained)} of {training['epochs']} epochs")
    return found + ([f"unknown: {', '.join(unknown)}"] if unknown else [])


def _has_effect(field: str, training: Mapping[str, Any]) -> bool:
    other, applies = DEPENDENT.get(field, (field, lambda _: True))
    return applies(training.get(other))


def _given(training: Mapping[str, Any], field: str) -> Any:
    return training.get(USED.get(field, field), training.get(field, _UNKNOWN))


def _equal(field: str, given: Any, expected: Any) -> bool:
    if field == "loader":
        return given in PIXELS
    if isinstance(given, int | float) and isinstance(expected, int | float):
        return math.isclose(given, expected, rel_tol=1e-9)
    return _plain(given) == _plain(expected)


def _reg_args(training: Mapping[str, Any], reference: Config) -> list[str]:
    """The parameters of the methods that are not the defaults, which the recipes use."""
    arguments = training.get("reg_args") or {}
    if not isinstance(arguments, Mapping):
        return [f"reg_args {arguments}"]
    names = str(training["reg"]).split("+")
    try:
        routed = methods.route_parameters(str(training["reg"]), names, dict(arguments))
    except InputError:
        return [f"reg_args {dict(arguments)}"]
    found = []
    originals = methods.create(str(training["reg"]), dataset=reference.dataset).original
    for build, own in routed:
        for key, value in own.items():
            default = inspect.signature(build).parameters[key].default
            if default is None and (build.__name__, key) in _CHOSEN:
                default = _CHOSEN[build.__name__, key](reference)
            original = originals.get(f"{build.__name__}_{key}", default)
            if key == "ood" or value is None or _equal(key, value, original):  # ood: a path
                continue
            if not _equal(key, value, default):
                found.append(f"reg_args {key} {_text(value)} instead of {_text(default)}")
    return found


def _batch_norm(training: Mapping[str, Any]) -> list[str]:
    size = training.get("batch_size")
    if size is None or size >= LEAST_BATCH:
        return []
    return [f"batch_size {size}, so batch norm over {size} images instead of {LEAST_BATCH} or more"]


def _n_train(training: Mapping[str, Any], dataset: str) -> list[str]:
    total = training.get("n_train")
    return [] if total in (None, N_TRAIN[dataset]) else [f"n_train {total} instead of {N_TRAIN[dataset]}"]


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value, default=str))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)
