"""Checks of arguments. Each error names the parameter, its value and what to give."""

from __future__ import annotations

import difflib
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor


def not_known(parameter: str, value: object, known: tuple[str, ...]) -> str:
    """The message for a name that is not in ``known``: the nearest one, and all."""
    close = difflib.get_close_matches(str(value).casefold(), known, n=1, cutoff=0.4) if value is not None else []
    hint = f"did you mean {close[0]!r}? Known are" if close else "give one of"
    return f"`{parameter}` is {value!r}: {hint} {', '.join(known)}."


def whole_number(parameter: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """``value`` as an int. ValueError unless it is a whole number of its type (not 3.0, True or a tensor) from ``low``
    to ``high``."""
    span = "" if low is None else f" of {low} or more" if high is None else f" from {low} to {high}"
    good = isinstance(value, Integral) and not isinstance(value, bool)
    if not good or not (low is None or low <= value) or not (high is None or value <= high):
        found = repr(value) if value is None or isinstance(value, int | float | str) else type(value).__name__
        raise ValueError(f"`{parameter}` is {found}: give a whole number{span}.")
    return int(value)


def check_images(images: Any) -> None:
    """TypeError or ValueError unless ``images`` is a uint8 tensor [B, n, n, 3]."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"`images` is {found}: give a uint8 tensor [B, n, n, 3] of levels from 0 to 255.")
    shape = list(images.shape)
    if images.dim() != 4 or shape[3] != 3:
        turn = "; permute(0, 2, 3, 1) puts the channels last" if images.dim() == 4 and shape[1] == 3 else ""
        raise ValueError(f"`images` has shape {shape}: give [B, n, n, 3], channels last{turn}.")
    if shape[1] != shape[2] or shape[1] == 0:
        raise ValueError(f"`images` are {shape[1]} x {shape[2]} pixels: give square images, cropped or resized.")


def sample_indices(indices: Any, batch: int | None = None) -> np.ndarray:
    """int64 [B] modulo 2^32, on the host, which draws from them. ValueError unless they are ``batch`` whole numbers."""
    samples = np.atleast_1d(indices.cpu().numpy() if isinstance(indices, Tensor) else np.asarray(indices))
    wanted = "whole numbers" if batch is None else f"{batch} whole numbers"
    if samples.ndim != 1 or len(samples) != (len(samples) if batch is None else batch):
        raise ValueError(f"`indices` has shape {list(samples.shape)}: give {wanted}, one per image.")
    if len(samples) and not np.issubdtype(samples.dtype, np.integer):  # an empty list is of floats
        raise ValueError(f"`indices` holds {samples.dtype} values: give {wanted}, one per image.")
    return samples.astype(np.int64) & 0xFFFFFFFF  # the upper half of a key is an occurrence, which none has here
