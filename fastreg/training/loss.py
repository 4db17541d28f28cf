"""The training loss of a run: cross-entropy or binary cross-entropy on its method's targets, with class weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastreg.errors import InputError, unknown
from fastreg.kernels import mixed_binary_cross_entropy, mixed_cross_entropy
from fastreg.kernels.types import Targets
from fastreg.pipelines import Source
from fastreg.training.config import Config

Loss = Callable[[torch.Tensor, Targets], torch.Tensor]


def make_loss(config: Config, class_weight: torch.Tensor | None = None) -> Loss:
    """The loss of a batch, a float32 scalar, as a function of logits and targets.

    Args:
        config: settings of the run.
        class_weight: float32 [C] on the device of the logits, or None.
    """
    if config.bce_loss:
        options = (config.ls, config.bce_target_threshold, config.bce_sum)
        return lambda logits, targets: mixed_binary_cross_entropy(logits, targets, *options, class_weight=class_weight)
    return lambda logits, targets: mixed_cross_entropy(logits, targets, config.ls, class_weight=class_weight)


def class_weights(setting: str | Mapping[str, float] | None, source: Source) -> torch.Tensor | None:
    """The weight of each class of a training set.

    Args:
        setting: "balanced" for images / (classes * images of the class), which is 1 in the mean over the images; or
            weights by name of the class, 1 for the others; or None.
        source: the training set.

    Returns:
        float32 [C], or None.

    Raises:
        InputError: a class of a balanced set has no image, or a name is not that of a class.
    """
    if setting is None:
        return None
    if setting == "balanced":
        counts = np.bincount(source.labels, minlength=len(source.classes))
        if not counts.all():
            empty = source.classes[int(counts.argmin())]
            raise InputError(f"`class_weight` is balanced, and class {empty!r} has no image: give weights by name.")
        return torch.from_numpy(len(source) / (len(counts) * counts)).float()
    assert isinstance(setting, Mapping)
    for name in setting:
        if name not in source.classes:
            raise unknown("class in `class_weight`", name, source.classes[:20])
    return torch.tensor([float(setting.get(name, 1.0)) for name in source.classes])


def read_class_weight(text: str | None) -> str | dict[str, Any] | None:
    """The value of ``class_weight`` from the command line: "balanced", or the content of a JSON file.

    Raises:
        InputError: the file cannot be read, or is not a JSON object.
    """
    if text is None or text == "balanced":
        return text
    try:
        found = json.loads(Path(text).read_text())
    except OSError as error:
        raise InputError(
            f"`class_weight`: the file {text!r} cannot be read ({error.strerror}): give balanced, or a JSON file."
        ) from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"`class_weight`: {text} is not a JSON object of numbers by name of the class.")
    return found
