"""ImageNet-C, CIFAR-C and ImageNet-C-bar in batches: ``corrupt`` and the random fields it takes.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019), as its generation scripts compute it, quirks included. The README of this folder lists the quirks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions import (
    c_bar,
    color,
    defocus,
    elastic,
    fog,
    frost,
    gaussian,
    glass,
    jpeg_compression,
    motion,
    noise,
    pixelate,
    snow,
    spatter,
    zoom,
)
from fastreg.kernels.corruptions.arguments import check_images, not_known, sample_indices, whole_number
from fastreg.kernels.corruptions.check_fields import check_fields
from fastreg.kernels.corruptions.constants import (
    CONSTANTS,
    CORRUPTION_CATEGORIES,
    CORRUPTIONS,
    FROST_SCALE,
    SEVERITIES,
    resolve,
)
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.pixels import on
from fastreg.kernels.corruptions.table import TABLE, Corruption, register
from fastreg.kernels.corruptions.threads import map_chunks
from fastreg.kernels.dispatch import use_triton
from fastreg.kernels.jpeg import jpeg_round_trip

__all__ = [
    "CORRUPTIONS",
    "CORRUPTION_CATEGORIES",
    "C_BAR_CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "corrupt",
    "draw_fields",
]

C_BAR_CORRUPTIONS = tuple(c_bar.LEVELS)  # ImageNet-C-bar's ten
# Every module that makes rows of the table; extra corruptions keep this order.
MODULES = (
    noise,
    gaussian,
    defocus,
    glass,
    motion,
    zoom,
    snow,
    frost,
    fog,
    spatter,
    color,
    elastic,
    pixelate,
    jpeg_compression,
)
register(*(row for module in MODULES for row in module.ROWS))

if TYPE_CHECKING:
    EXTRA_CORRUPTIONS: tuple[str, ...]


def _extra() -> tuple[str, ...]:
    return tuple(name for name in TABLE if name not in CORRUPTIONS)


def __getattr__(name: str) -> tuple[str, ...]:
    if name == "EXTRA_CORRUPTIONS":  # every other row of the table, also those registered later
        return _extra()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


FINAL_QUALITY = 85  # JPEG quality of the published ImageNet-C
# Values (pixels times channels) per chunk. A corruption holds at most a dozen float64 buffers of this many: the cache
# of one core on the CPU, 6 GiB on a GPU.
CHUNK = {"cpu": 2**18, "cuda": 2**26}
MAX_IMAGES = 65535  # per launch: the largest second axis of a grid


def corrupt(
    images: Tensor,
    name: str,
    severity: int,
    *,
    seed: int = 0,
    indices: Tensor | None = None,
    constants: str = "auto",
    jpeg: bool = False,
    fields: dict[str, Tensor] | None = None,
    textures: object = None,
) -> Tensor:
    """Corrupt a batch as ImageNet-C and CIFAR-C were made. The result of a sample does not depend on its batch.

    Args:
        images: uint8 [B, n, n, 3], RGB.
        name: One of ``CORRUPTIONS``, ``EXTRA_CORRUPTIONS`` or ``C_BAR_CORRUPTIONS``.
        severity: 1 to 5.
        seed: Key of the random numbers.
        indices: int64 [B], index of each image in the data set, which enters the key. Needed by corruptions that draw,
            unless ``fields`` is given. The host draws: indices on a GPU are copied to it, which synchronizes.
        constants: "imagenet224", "imagenet299", "tiny64", "cifar32", or "auto" for the set of the images' size.
            ImageNet-C-bar has one set, for every size.
        jpeg: Add ImageNet-C's JPEG round trip at quality 85.
        fields: The random fields, as ``draw_fields`` gives them. None: drawn from ``seed`` and ``indices``.
        textures: The five frost textures, uint8 RGB arrays [H, W, 3]. Needed by frost, unless ``fields`` is given.

    Returns:
        uint8 [B, n, n, 3], a new tensor on the images' device.

    Raises:
        TypeError: ``images`` is not a uint8 tensor; ``fields`` or ``textures`` has the wrong type.
        ValueError: An argument has another shape or a value that is not allowed, or is needed and missing.

    Source:
        Hendrycks and Dietterich, ICLR 2019, and its generation scripts.
    """
    check_images(images)
    batch, n = images.shape[:2]
    row, parameter, constants = _look_up(name, severity, n, constants)
    if row.draw is None and fields is None:
        fields = {}
    key = None
    if fields is not None:
        fields = check_fields(fields, row, parameter, images)
    elif indices is None:
        raise ValueError(f"`indices` is None: {name} draws random numbers, so give `indices` or `fields`.")
    else:
        key = _key(row, severity, seed, sample_indices(indices, batch), n, constants, images.device, textures)

    images = images.contiguous()
    step = min(MAX_IMAGES, max(1, CHUNK["cuda" if images.is_cuda else "cpu"] // (n * n * 3)))

    def corrupted(start: int) -> Tensor:
        here = slice(start, start + step)
        chunk = images[here]
        if fields is not None:
            chunk = row.apply(chunk, parameter, {field: values[here] for field, values in fields.items()})
        elif key is not None:
            chunk = row.generate(chunk, parameter, key._replace(samples=key.samples[here]))
        return jpeg_round_trip(chunk, FINAL_QUALITY) if jpeg else chunk

    chunks = map_chunks(corrupted, range(0, batch, step), not use_triton(images))
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks) if chunks else images.clone()


def draw_fields(
    name: str,
    severity: int,
    *,
    seed: int,
    indices: Tensor,
    size: int,
    constants: str = "auto",
    device: torch.device | str = "cpu",
    textures: object = None,
    images: Tensor | np.ndarray | None = None,
) -> dict[str, Tensor]:
    """Draw the random fields that ``corrupt`` would use for these samples.

    Args:
        name: One of ``CORRUPTIONS``, ``EXTRA_CORRUPTIONS`` or ``C_BAR_CORRUPTIONS``.
        severity: 1 to 5.
        seed: Key of the random numbers.
        indices: int64 [B], or other integers, on the host: index of each image in the data set.
        size: Side of the images, pixels.
        constants: A set of constants, or "auto" for the set of this size.
        device: Device of the fields.
        textures: The five frost textures, uint8 RGB arrays [H, W, 3]. Needed by frost.
        images: uint8 [B, size, size, 3], the images to be corrupted. Needed by shot_noise, whose counts depend on them.

    Returns:
        The fields by name, the batch first; {} if the corruption draws nothing. "normal" is standard normal, float32.

        * gaussian_noise, speckle_noise: ``normal`` [B, n, n, 3]
        * shot_noise: ``counts`` int16 [B, n, n, 3]
        * impulse_noise: ``replace`` and ``salt`` bool [B, n, n, 3]
        * glass_blur: ``dx`` and ``dy`` int16 [B, passes, n, n], pixels
        * motion_blur: ``angle`` float32 [B], degrees
        * snow: ``normal`` [B, n, n]; ``angle`` float32 [B], degrees
        * frost: ``texture`` uint8 [B, n, n, 3]
        * fog: ``plasma`` float32 [B, n, n] in [0, 1]
        * elastic_transform: ``corner_shift`` float32 [B, 3, 2], pixels (x, y); ``dx`` and ``dy`` float32 [B, n, n] in
          (-1, 1), before smoothing
        * spatter: ``normal`` [B, n, n]
        * ImageNet-C-bar: lengths in pixels, angles in radians, rows before columns where a word names both. numbers per
          image float64 [B]; ``center`` [B, 2] (``sparkles`` [B, 5, 2]); ``rays`` int64 [B] or [B, 5], with ``normal``
          [..., 199]; ``phase`` float64 [B, n * n // 2] (``brownish_noise`` [B, 3, n * n // 2]); ``uniform`` [B, 1600];
          ``gradient`` int16 [B, 256, 2] and ``permutation`` int64 [B, 256]

    Raises:
        TypeError: ``textures`` has the wrong type.
        ValueError: An argument has a value that is not allowed, or is needed and missing.
    """
    size = whole_number("size", size, 1)
    row, parameter, constants = _look_up(name, severity, size, constants)
    if row.draw is None:
        return {}
    samples = sample_indices(indices)
    if images is not None:
        images = torch.as_tensor(images)
        wanted = [len(samples), size, size, 3]
        if images.dtype != torch.uint8 or list(images.shape) != wanted:
            raise ValueError(f"`images` is {images.dtype} {list(images.shape)}: give uint8 {wanted}.")
    key = _key(row, severity, seed, samples, size, constants, torch.device(device), textures)
    chunks = []
    for start in range(0, max(len(samples), 1), MAX_IMAGES):
        here = slice(start, start + MAX_IMAGES)
        pixels = images[here] if images is not None else None
        drawn = row.draw(key._replace(samples=samples[here]), size, parameter, pixels)
        chunks.append({field: on(values, key.device) for field, values in drawn.items()})
    if len(chunks) == 1:
        return chunks[0]
    return {field: torch.cat([chunk[field] for chunk in chunks]) for field in chunks[0]}


def _look_up(name: str, severity: int, size: int, constants: str) -> tuple[Corruption, Any, str]:
    """The row, the constant of its severity, and the name of the set of constants."""
    if not isinstance(name, str) or name not in TABLE.keys() | c_bar.TABLE.keys():
        raise ValueError(not_known("name", name, (*CORRUPTIONS, *_extra(), *C_BAR_CORRUPTIONS)))
    severity = whole_number("severity", severity, SEVERITIES[0], SEVERITIES[-1])
    if name in c_bar.TABLE:
        if constants != "auto":
            resolve(constants, size)  # an unknown set is an error here, too
        return c_bar.TABLE[name], c_bar.LEVELS[name][severity - 1], constants
    constants = resolve(constants, size)
    return TABLE[name], CONSTANTS[constants][name][severity - 1], constants


def _key(
    row: Corruption,
    severity: int,
    seed: int,
    samples: np.ndarray,
    size: int,
    constants: str,
    device: torch.device,
    textures: object,
) -> Key:
    key = Key(whole_number("seed", seed), samples, int(severity), device)
    if not row.textures:
        return key
    return key._replace(textures=frost.join_textures(textures, FROST_SCALE[constants], size, device))
