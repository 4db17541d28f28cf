"""Functions from a batch of uint8 images to logits, one per kind of condition; constants and textures for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from fastreg import kernels
from fastreg.errors import InputError, unknown
from fastreg.evaluation.attacks import pgd_attack, random_start
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.pixel_cache import Pixels
from fastreg.kernels import CORRUPTIONS, augment, corrupt, draw_fields
from fastreg.kernels.attacks import fgsm_attack
from fastreg.kernels.corruptions.constants import SIZES, resolve
from fastreg.kernels.types import Plan

Logits = Callable[[Classifier, Any], Tensor]  # of Pixels or FloatPixels
SEVERITIES = (1, 2, 3, 4, 5)


def clean(classifier: Classifier, batch: Pixels) -> Tensor:
    return classifier.images(batch.images)


def occlusion(classifier: Classifier, batch: Pixels) -> Tensor:
    """Black in pixel space, S/2 wide: 16 at 32 px, 112 at 224 px (Yun et al. 2019, E.1)."""
    n, size = batch.images.shape[:2]
    side = size // 2
    low = (size - side) // 2
    box = torch.full((n, 4), low, dtype=torch.int32, device=batch.images.device)  # made there: nothing is copied
    box[:, 2:] += side
    return classifier.images(batch.images, Plan(box=box, box_fill=torch.ones_like(box[:, 0], dtype=torch.int8)))


def float_pixels(images: Tensor) -> Tensor:
    """float32 [B, 3, S, S] in [0, 1] of uint8 [B, S, S, 3]."""
    return augment(images, Plan(), mean=(0.0,) * 3, std=(1.0,) * 3, dtype=torch.float32)


class Attack:
    """FGSM (one step, no random start), or PGD (from a random start) with ``steps`` above one or any of ``options``.

    Goodfellow et al. 2015 (1412.6572) and Madry et al. 2018 (1706.06083); plain cross-entropy on the true label.
    ``unmoved`` counts the images that the steps leave as they were, because their gradient is zero. ``options`` are
    those of :func:`fastreg.evaluation.attacks.pgd_attack`.
    """

    def __init__(self, *, epsilon: float, clip: bool, steps: int = 1, seed: int = 0, **options: Any):
        self.epsilon, self.clip, self.steps, self.seed, self.options = epsilon, clip, steps, seed, options
        self.unmoved: Tensor | int = 0  # on the device: nothing waits for it

    def __call__(self, classifier: Classifier, batch: Pixels) -> Tensor:
        n, pad = len(batch.images), classifier.padded  # one shape for a compiled model; attacks are per sample
        start, labels = pad(float_pixels(batch.images)), pad(batch.labels)
        ball: dict[str, Any] = {"epsilon": self.epsilon, "clip": self.clip}
        if self.steps == 1 and not self.options:
            attacked = fgsm_attack(classifier.module, start, labels, **ball)
        else:
            more = {**ball, **self.options, "seed": self.seed, "indices": pad(batch.indices)}
            attacked = pgd_attack(classifier.module, start, labels, steps=self.steps, **more)
            norm = self.options.get("norm", "linf")
            start = random_start(start, self.epsilon, norm, self.seed, more["indices"], self.clip)
        self.unmoved = self.unmoved + (attacked == start)[:n].flatten(1).all(1).sum()
        return classifier.pixels(attacked)[:n]


def corruption(
    name: str, severity: int, *, seed: int, constants: str, jpeg: bool, textures: Sequence[Any] | None
) -> Logits:
    """One corruption at one severity, drawn from (seed, sample index, severity); see ``fastreg.kernels.corrupt``."""

    def logits(classifier: Classifier, batch: Pixels) -> Tensor:
        images = corrupt(
            batch.images,
            name,
            severity,
            seed=seed,
            indices=batch.indices,
            constants=constants,
            jpeg=jpeg,
            textures=textures,
        )
        return classifier.images(images)

    return logits


def corruption_conditions(
    corruptions: str | Iterable[str] | None, severities: str | int | Iterable[int] | None
) -> list[tuple[str, int]]:
    """(name, severity) pairs of a corruption suite.

    Args:
        corruptions: names, also joined by commas; None: the 15 of the suites.
        severities: a number, or several, also joined by commas; None: 1 to 5.

    Raises:
        InputError: an unknown name, or a severity that is not 1 to 5.
    """
    known = [*CORRUPTIONS, *kernels.EXTRA_CORRUPTIONS, *kernels.C_BAR_CORRUPTIONS]
    if isinstance(corruptions, str):
        corruptions = [name.strip() for name in corruptions.split(",")]
    names = list(dict.fromkeys(corruptions or CORRUPTIONS))
    for name in names:
        if name not in known:
            raise unknown("corruption", name, known)
    given = SEVERITIES if severities is None else severities
    words = given if isinstance(given, Iterable) and not isinstance(given, str) else str(given).split(",")
    try:
        chosen = sorted({int(str(word)) for word in words})  # int(2.5) would be 2
    except ValueError:
        chosen = []
    if not chosen:
        raise InputError(f"`severities` is {severities}: give numbers from 1 to 5, joined by commas.")
    if not set(chosen) <= set(SEVERITIES):
        raise InputError(f"severities are 1 to 5, but {', '.join(map(str, chosen))} were asked for.")
    return [(name, severity) for name in names for severity in chosen]


def constants_for(name: str, size: int) -> str:
    """The name of the constants for images of that size. Raises InputError if no constants are meant for it."""
    try:
        return resolve(name, size)
    except ValueError as error:
        raise InputError(str(error)) from error


def nearest_constants(name: str, size: int) -> tuple[str, float]:
    """The constants for images of any size.

    Args:
        name: a name, or "auto": of the published size nearest by ratio.
        size: side of the images in pixels.

    Returns:
        ``(name, scale)``: ``scale`` is ``size`` over the published size if "auto" found no equal size, otherwise 1.
    """
    if name != "auto" or size in SIZES:
        return constants_for(name, size), 1.0
    side = min(SIZES, key=lambda published: abs(math.log(size / published)))
    return SIZES[side], size / side


def frost_textures(folder: str | Path | None, size: int, constants: str, scale: float = 1.0) -> list[np.ndarray]:
    """The frost textures, scaled. Raises InputError if they are missing or too small for the images."""
    from fastreg.pipelines.frost import load_frost

    leave = "or leave frost out."
    try:
        textures = [cv2.resize(t, None, fx=scale, fy=scale) if scale != 1 else t for t in load_frost(folder)]
        draw_fields(
            "frost",
            1,
            seed=0,
            indices=torch.zeros(1, dtype=torch.int64),
            size=size,
            constants=constants,
            textures=textures,
        )
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}, {leave}") from error
    except ValueError as error:
        raise InputError(f"images of {size} px: {str(error).rstrip('.')}, {leave}") from error
    return textures
