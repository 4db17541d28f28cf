"""What the methods of automatic augmentation share: torchvision's tables of magnitudes, and the views of a JSD step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from fastreg.errors import unknown
from fastreg.kernels import philox
from fastreg.kernels.auto_augmentation import AUTO_AUGMENT_OPERATIONS
from fastreg.kernels.auto_augmentation.operations import INTERPOLATIONS
from fastreg.methods.base import Arrays, Component, DrawKeys, Drawn, MethodContext, number
from fastreg.methods.jsd import SPLITS, jsd_step

OPERATION_ID = {name: i for i, name in enumerate(AUTO_AUGMENT_OPERATIONS)}
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
_PLAIN = ("AutoContrast", "Equalize", "Invert", "Identity")  # operations without a magnitude


class Space(NamedTuple):
    """The operations that a law draws from, each with its magnitudes and whether a sign is drawn."""

    operations: np.ndarray  # int64 [N], indices into AUTO_AUGMENT_OPERATIONS
    magnitudes: np.ndarray  # float32 [N, bins]
    signed: np.ndarray  # bool [N]


def space(names: tuple[str, ...], bins: int, top: dict[str, float], bits: tuple[int, int]) -> Space:
    """A space of ``bins`` evenly spaced magnitudes from 0 to ``top`` of each operation, as torchvision computes them.

    Solarize goes from 255 to 0. Posterize keeps from ``bits[0]`` down to ``bits[0] - bits[1]`` bits.
    """
    rows = []
    for name in names:
        if name == "Posterize":
            row = bits[0] - (torch.arange(bins) / ((bins - 1) / bits[1])).round().int()
        elif name == "Solarize":
            row = torch.linspace(255.0, 0.0, bins)
        else:
            row = torch.linspace(0.0, 0.0 if name in _PLAIN else top[name], bins)
        rows.append(row.float().numpy())
    operations = np.array([OPERATION_ID[name] for name in names])
    return Space(operations, np.stack(rows), np.array([name in SIGNED for name in names]))


@cache
def wide_space(bins: int) -> Space:
    """The space of TrivialAugmentWide."""
    top = dict.fromkeys(SIGNED, 0.99) | {"TranslateX": 32.0, "TranslateY": 32.0, "Rotate": 135.0}
    return space(("Identity", *SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize"), bins, top, (8, 6))


@cache
def search_space(bins: int, size: tuple[int, int], first: str = "Identity") -> Space:
    """The space of AutoAugment (``first`` "Invert") and RandAugment ("Identity") for images of (height, width)."""
    top = dict.fromkeys(SIGNED, 0.9) | {"ShearX": 0.3, "ShearY": 0.3, "Rotate": 30.0}
    top |= {"TranslateX": 150.0 / 331.0 * size[1], "TranslateY": 150.0 / 331.0 * size[0]}
    return space((first, *SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize"), bins, top, (8, 4))


def take(space: Space, operation: np.ndarray, level: np.ndarray, sign: np.ndarray) -> Arrays:
    """Operations and magnitudes of rows ``operation`` and columns ``level`` of a space; negative where ``sign``."""
    magnitude = space.magnitudes[operation, level]
    negative = space.signed[operation] & sign
    return {"operations": space.operations[operation], "magnitudes": np.where(negative, -magnitude, magnitude)}


def top_bit(words: np.ndarray) -> np.ndarray:
    """One fair coin per word, bool."""
    return words >> np.uint32(31) == 1


def automatic(
    context: MethodContext,
    name: str,
    draw: Callable[[DrawKeys], Arrays],
    *,
    interpolation: str | None,
    jsd: bool,
    jsd_weight: float,
    fill: str = "black",
    chains: bool = False,
) -> Component:
    """The component of a method of automatic augmentation.

    Args:
        context: Settings of all components.
        name: Name of the method.
        draw: Arrays of one view by Plan field, [B, K] or (``chains``) [B, W, K].
        interpolation: Of the geometric operations, for all samples. None: drawn by ``draw``.
        jsd: Whether each sample becomes a plain and two augmented views, which the training step pairs.
        jsd_weight: Weight of the Jensen-Shannon divergence in the loss.
        fill: As in ``Method``.
        chains: Whether ``draw`` returns chains.

    Raises:
        InputError: ``interpolation`` is unknown, or ``jsd_weight`` is negative.
    """
    jsd_weight = number("jsd_weight", jsd_weight, 0)
    if interpolation is not None and interpolation not in INTERPOLATIONS:
        raise unknown("`interpolation`", str(interpolation), INTERPOLATIONS)
    fixed = INTERPOLATIONS.index(interpolation) if interpolation is not None else None

    def drawn(keys: DrawKeys) -> Drawn:
        if not jsd:
            return Drawn(one_view(keys))
        views = [one_view(keys._replace(samples=philox.view_keys(keys.samples, view))) for view in range(1, SPLITS)]
        arrays = {field: np.stack([view[field] for view in views], 1) for field in views[0]}
        if not chains:  # one chain each
            arrays = {field: array[:, :, None] for field, array in arrays.items()}
        return Drawn(arrays)

    def one_view(keys: DrawKeys) -> Arrays:
        arrays = draw(keys)
        if fixed == 0:
            arrays.pop("interpolation", None)
        elif fixed is not None:
            arrays["interpolation"] = np.full(arrays["operations"].shape, fixed)
        types: dict[str, Any] = {"operations": np.int64, "interpolation": np.int8}
        return {field: np.ascontiguousarray(array, types.get(field, np.float32)) for field, array in arrays.items()}

    writes = ["operations", "magnitudes"]
    writes += [] if fixed == 0 else ["interpolation"]
    writes += ["chain_weights"] if chains else []
    step = jsd_step(jsd_weight) if jsd else None
    return Component(name, drawn, writes=tuple(writes), step=step, fill=fill, softmax=jsd)
