"""Every option of an evaluation, checked before any work: a field here, and a row of cli/eval_options.py."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.pipelines.loader_table import INTERPOLATIONS, loader_names

PROTOCOL = "folder"  # the loader whose pixels are Pillow's and torchvision's, on which published errors were measured
CROP_PCT = 224 / 256  # the crop's side over the side that the shorter one is resized to, as published
INTERPOLATION = "bilinear"  # of that resize, as published
CHOICES = {
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "fidelity": ("auto", "dataset", "memory"),
    "scored_classes": ("subset", "all"),
    "attack_norm": ("linf", "l2"),
    "attack_target": (None, "least_likely"),
    "interpolation": INTERPOLATIONS,
}
EPSILON = 8 / 255  # the paper's, on the [0, 1] scale of pixels

Normalization = tuple[float, float, float]


@dataclass(kw_only=True)
class EvalConfig:
    """The options of :func:`fastreg.evaluation.evaluate`, which documents them.

    Raises:
        InputError: a value that no evaluation can have.
    """

    # model
    mean: Any = "data"
    std: Any = "data"
    classes: Sequence[str] | None = None
    scored_classes: str = "subset"
    precision: str = "fp32"
    compiled: bool = False
    device: Any = None
    batch_size: int = 128

    # images
    size: int | None = None
    crop_pct: float = CROP_PCT
    interpolation: str = INTERPOLATION
    loader: str = "auto"
    workers: int | None = None
    seed: int = 0

    # suites
    epsilon: float = EPSILON
    clip: bool = True
    attack_norm: str = "linf"
    attack_steps: int = 10
    attack_step_size: float | None = None
    attack_restarts: int = 1
    attack_target: str | None = None
    attack_samples: int = 1
    fidelity: str = "auto"
    constants: str = "auto"
    corruptions: str | Iterable[str] | None = None
    severities: str | int | Iterable[int] | None = None
    frost_dir: str | Path | None = None
    imagenet_c_dir: str | Path | None = None
    resize_official: bool = False
    cifar_c_dir: str | Path | None = None
    imagenet_c_bar_dir: str | Path | None = None
    perturbations: str | Iterable[str] | None = None
    imagenet_p_dir: str | Path | None = None
    cifar_p_dir: str | Path | None = None
    ood_dir: str | Path | None = None
    odin_split: bool = False
    ood_scores: str | Iterable[str] | None = None
    ood_val_dir: str | Path | None = None
    fit_data: Any = None
    fit_images: int = 50_000
    feature_layer: str | None = None

    # result
    out: str | Path | None = None
    name: str | None = None
    provenance: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        # the table of loaders is read when it is needed: one may have been added since the import
        for option, known in {**CHOICES, "loader": loader_names(evaluation=True)}.items():
            if getattr(self, option) not in known:
                raise unknown(f"`{option}`", str(getattr(self, option)), [word for word in known if word])
        if not self.epsilon > 0 or (self.epsilon > 1 and self.attack_norm == "linf"):
            raise InputError(f"`epsilon` is {self.epsilon:g}, but pixels are in [0, 1]: give a value such as 8/255.")
        if self.batch_size < 1:
            raise InputError(f"`batch_size` is {self.batch_size}: give 1 or more.")
        for option in ("attack_steps", "attack_restarts", "attack_samples", "fit_images"):
            if getattr(self, option) < 1:
                raise InputError(f"`{option}` is {getattr(self, option)}: give 1 or more.")
        if self.attack_step_size is not None and not self.attack_step_size > 0:
            raise InputError(f"`attack_step_size` is {self.attack_step_size:g}: give a number above 0.")
        check_size(self.size, self.crop_pct)
        self.precision = "fp32" if self.precision == "auto" else self.precision
        self.fidelity = "dataset" if self.fidelity == "auto" else self.fidelity
        self.loader = PROTOCOL if self.loader == "auto" else self.loader
        self.mean, self.std = _normalization("mean", self.mean), _normalization("std", self.std)
        if (self.mean is None) != (self.std is None):
            absent, given = ("mean", "std") if self.mean is None else ("std", "mean")
            raise InputError(
                f"`{absent}` is None but `{given}` is {getattr(self, given)!r}: give None for both (the model takes "
                f"pixels in [0, 1]), or three numbers for both."
            )


def check_size(size: int | None, crop_pct: float) -> None:
    """Raise InputError for a size or crop that no image can have."""
    if size is not None and size < 1:
        raise InputError(f"`size` is {size}: give 1 or more pixels.")
    if not 0 < crop_pct <= 1:
        raise InputError(f"`crop_pct` is {crop_pct:g}: give the kept share of the resized side, above 0 and up to 1.")


def make_config(options: Mapping[str, Any]) -> EvalConfig:
    """Check the keyword arguments of ``evaluate``. Raises InputError for an unknown one or a wrong value."""
    known = [field.name for field in fields(EvalConfig)]
    for name in options:
        if name not in known:
            raise unknown("option of evaluate", name, known)
    return EvalConfig(**options)


def option_parameters() -> list[inspect.Parameter]:
    """The options as keyword-only parameters, for a signature."""
    return [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(EvalConfig).parameters.values()]


def _normalization(option: str, given: Any) -> Normalization | str | None:
    """ "data", None, or three floats of a number, a sequence, an array or a tensor."""
    if given is None or (isinstance(given, str) and given == "data"):
        return given
    wrong = InputError(f'`{option}` is {given!r}: give "data", None, or three numbers from 0 to 1.')
    try:
        values = given.tolist() if hasattr(given, "tolist") else given
        while isinstance(values, Sequence) and len(values) == 1 and not isinstance(values, str):
            values = values[0]  # [1, 3, 1, 1] as tensors are broadcast
        numbers = [_number(value) for value in values] if isinstance(values, Sequence) else [_number(values)] * 3
    except (TypeError, ValueError):
        raise wrong from None
    if len(numbers) != 3:
        raise wrong
    for value in numbers:
        if value > 1:
            raise InputError(f"`{option}` holds {value:g}, but pixels are in [0, 1]: divide the numbers by 255.")
        if not math.isfinite(value) or (option == "std" and value <= 0):
            allowed = "greater than 0 and at most 1" if option == "std" else "at most 1"
            raise InputError(f"`{option}` holds {value:g}: give numbers {allowed}.")
    return numbers[0], numbers[1], numbers[2]


def _number(value: Any) -> float:
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, str | bool):
        raise TypeError
    return float(value)
