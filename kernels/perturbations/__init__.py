"""ImageNet-P and CIFAR-10-P: sequences of slightly different frames of each image, as their scripts made them.

Frames are those before the published files' compression: ImageNet-P's are H.264 videos, CIFAR-10-P's are arrays as
they were made.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019), and its generation scripts. The README of this folder says how exact each is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.arguments import not_known, sample_indices, whole_number
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.perturbations import appearance, geometry, noise
from fastreg.kernels.perturbations.constants import (
    CONSTANTS,
    EXTRA_PERTURBATIONS,
    NOISE_FRAMES,
    PERTURBATIONS,
    SIZES,
    Sweep,
    family_and_level,
)
from fastreg.kernels.perturbations.view import View

__all__ = [
    "EXTRA_PERTURBATIONS",
    "PERTURBATIONS",
    "draw_perturbation_fields",
    "perturb",
    "perturbation_frames",
]


class _Family(NamedTuple):
    """``apply(view, parameter[, fields])``; ``whole``: it reads more of the image than the frames show."""

    apply: Callable[..., Tensor]
    draw: Callable[..., dict[str, Tensor]] | None = None
    whole: bool = False


_FAMILIES: dict[str, _Family] = {
    "gaussian_noise": _Family(noise.gaussian_noise, noise.draw_normals),
    "shot_noise": _Family(noise.shot_noise, noise.draw_counts),
    "speckle_noise": _Family(noise.speckle_noise, noise.draw_normals),
    "motion_blur": _Family(appearance.motion_blur),
    "gaussian_blur": _Family(appearance.gaussian_blur),
    "brightness": _Family(appearance.brightness),
    "snow": _Family(appearance.snow, appearance.draw_normals),
    "spatter": _Family(appearance.spatter, appearance.draw_normals),
    "zoom_blur": _Family(geometry.zoom_blur, whole=True),
    "translate": _Family(geometry.translate, whole=True),
    "rotate": _Family(geometry.rotate, whole=True),
    "tilt": _Family(geometry.tilt, whole=True),
    "scale": _Family(geometry.scale, whole=True),
    "shear": _Family(geometry.shear, whole=True),
}
NOISES = tuple(name for name in (*PERTURBATIONS, *EXTRA_PERTURBATIONS) if "noise" in name)


def reads_whole_images(name: str) -> bool:
    """Whether frames depend on pixels outside of the centered square that they show."""
    return _FAMILIES[family_and_level(name)[0]].whole


def perturbation_frames(name: str, constants: str = "imagenet224") -> int:
    """The number of frames of a sequence.

    Args:
        name: One of ``PERTURBATIONS`` or ``EXTRA_PERTURBATIONS``.
        constants: "imagenet224", "tiny64" or "cifar32".

    Returns:
        31, but for ``translate`` (41, 31 and 16) and CIFAR's ``motion_blur`` (21).

    Raises:
        ValueError: An unknown name.

    Source:
        Hendrycks and Dietterich, ICLR 2019, and its generation scripts.
    """
    family, parameter = _look_up(name, 0, constants)
    if family in ("gaussian_noise", "shot_noise", "speckle_noise"):
        return NOISE_FRAMES
    if isinstance(parameter, Sweep):
        return parameter.frames
    sweeps = [value for value in parameter if isinstance(value, Sweep)]
    return sweeps[0].frames if sweeps else parameter.frames


def perturb(
    images: Tensor,
    name: str,
    *,
    seed: int = 0,
    indices: Tensor | None = None,
    constants: str = "auto",
    fields: Mapping[str, Tensor] | None = None,
    size: int | None = None,
    extents: Tensor | np.ndarray | None = None,
) -> Tensor:
    """Make the sequence of each image. The result of a sample does not depend on its batch.

    Args:
        images: uint8 [B, H, W, 3], RGB: whole images after their resize, each in the top left corner of its canvas.
            Frames of translate, rotate, tilt, scale, shear and zoom_blur also contain pixels from outside the square.
        name: One of ``PERTURBATIONS`` or ``EXTRA_PERTURBATIONS``.
        seed: Key of the random numbers.
        indices: int64 [B], index of each image in the data set, which enters the key. Needed by noise, snow and spatter
            unless ``fields`` is given.
        constants: "imagenet224", "tiny64", "cifar32", or "auto" for the set of the frames' size.
        fields: ``normal`` float32 or ``counts`` int16, [B, ...] as ``draw_perturbation_fields`` gives them. None: drawn
            from ``seed`` and ``indices``.
        size: Side of the frames in pixels, the centered square of each image. None: the shorter of H and W.
        extents: int64 [B, 2], height and width of each image, on the host. None: all fill their canvas.

    Returns:
        uint8 [B, F, size, size, 3], a new tensor on the images' device.

    Raises:
        TypeError: ``images`` is not a uint8 tensor.
        ValueError: An argument has another shape or a value that is not allowed, or is needed and missing.

    Source:
        Hendrycks and Dietterich, ICLR 2019, and its generation scripts.
    """
    view = _view(images, size, extents)
    family, parameter = _look_up(name, view.size, constants)
    row = _FAMILIES[family]
    if row.draw is None:
        if fields:
            raise ValueError(f"`fields` holds {', '.join(fields)}: {name} draws nothing and takes no fields.")
        return row.apply(view, parameter)
    if fields is not None:
        return row.apply(view, parameter, _checked(fields, family, view))
    if indices is None:
        raise ValueError(f"`indices` is None: {name} draws random numbers, so give `indices` or `fields`.")
    return row.apply(view, parameter, _draw(name, parameter, view, seed, indices))


def draw_perturbation_fields(
    images: Tensor,
    name: str,
    *,
    seed: int,
    indices: Tensor,
    constants: str = "auto",
    size: int | None = None,
    extents: Tensor | np.ndarray | None = None,
) -> dict[str, Tensor]:
    """Draw the random fields that ``perturb`` would use for these images.

    Args:
        images: uint8 [B, H, W, 3], as for ``perturb``. shot_noise counts the photons of each pixel.
        name: One of ``PERTURBATIONS`` or ``EXTRA_PERTURBATIONS``.
        seed: Key of the random numbers.
        indices: int64 [B], index of each image in the data set.
        constants: As for ``perturb``.
        size: As for ``perturb``.
        extents: int64 [B, 2], as for ``perturb``.

    Returns:
        The fields by name, the batch first; {} if the perturbation draws nothing. "normal" is standard normal float32:
        [B, 30, n, n, 3] of gaussian_noise and speckle_noise, [B, n, n] of snow and spatter. "counts" int16
        [B, 30, n, n, 3] of shot_noise.

    Raises:
        ValueError: An argument has a value that is not allowed.
    """
    view = _view(images, size, extents)
    family, parameter = _look_up(name, view.size, constants)
    return _draw(name, parameter, view, seed, indices) if _FAMILIES[family].draw else {}


def _draw(name: str, parameter: Any, view: View, seed: int, indices: Any) -> dict[str, Tensor]:
    family, level = family_and_level(name)
    draw = _FAMILIES[family].draw
    assert draw is not None
    key = Key(whole_number("seed", seed), sample_indices(indices, len(view)), level, view.device)
    return draw(key, f"{family}_frames", view, parameter)


def _look_up(name: str, size: int, constants: str) -> tuple[str, Any]:
    """The family of a perturbation, and its parameter of the set of constants."""
    known = (*PERTURBATIONS, *EXTRA_PERTURBATIONS)
    if not isinstance(name, str) or name not in known:
        raise ValueError(not_known("name", name, known))
    if constants == "auto":
        if size not in SIZES:
            sizes = ", ".join(map(str, sorted(SIZES)))
            raise ValueError(
                f"`constants` is 'auto', but there are none for {size} px (only for {sizes}): choose one of "
                f"{', '.join(CONSTANTS)}."
            )
        constants = SIZES[size]
    if constants not in CONSTANTS:
        raise ValueError(not_known("constants", constants, ("auto", *CONSTANTS)))
    family, level = family_and_level(name)
    parameter = CONSTANTS[constants][family]
    return family, parameter[level - 1] if family.endswith("noise") else parameter


def _view(images: Any, size: int | None, extents: Any) -> View:
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"`images` is {found}: give a uint8 tensor [B, H, W, 3] of levels from 0 to 255.")
    shape = list(images.shape)
    if images.dim() != 4 or shape[3] != 3 or 0 in shape[1:3]:
        raise ValueError(f"`images` has shape {shape}: give [B, H, W, 3], channels last.")
    sides = np.array(shape[1:3])
    if extents is None:
        extents = np.tile(sides, (shape[0], 1))
    extents = np.asarray(extents, np.int64)
    if extents.shape != (shape[0], 2) or (extents > sides).any():
        raise ValueError(
            f"`extents` has shape {list(extents.shape)} and values up to {extents.max(initial=0)}: give height and "
            f"width of each of the {shape[0]} images, at most {shape[1]} and {shape[2]}."
        )
    side = whole_number("size", min(shape[1:3]) if size is None else size, 1)
    if extents.min(initial=side) < side:
        raise ValueError(
            f"`size` is {side}, but an image has a side of {extents.min()}: give images that are as large."
        )
    return View(images, extents, side)


def _checked(fields: Mapping[str, Tensor], family: str, view: View) -> dict[str, Tensor]:
    n, name = view.size, "counts" if family == "shot_noise" else "normal"
    wanted = [len(view), n, n] if family in ("snow", "spatter") else [len(view), noise.DRAWS, n, n, 3]
    if set(fields) != {name}:
        raise ValueError(f"`fields` holds {', '.join(fields) or 'none'}: {family} takes {name}.")
    values = torch.as_tensor(fields[name])
    if list(values.shape) != wanted:
        raise ValueError(f"`fields[{name!r}]` has shape {list(values.shape)}: {family} takes {wanted}.")
    return {name: values.to(view.device)}
