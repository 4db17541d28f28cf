"""ImageNet-C and CIFAR-C in batches: ``corrupt`` and the random fields it takes.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019), as its generation scripts compute it, quirks included; README.md beside this file says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions import blur, digital, elastic, noise, noise_kernels, spatter, weather
from fastreg.kernels.corruptions import check_fields as given
from fastreg.kernels.corruptions import color as colour
from fastreg.kernels.corruptions import fields as drawn
from fastreg.kernels.corruptions.constants import (
    CONSTANTS,
    CORRUPTION_CATEGORIES,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    FROST_SCALE,
    nearest,
    resolve,
    whole,
)
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.filters import on
from fastreg.kernels.dispatch import use_triton
from fastreg.kernels.jpeg import jpeg_round_trip

__all__ = ["CORRUPTIONS", "CORRUPTION_CATEGORIES", "EXTRA_CORRUPTIONS", "corrupt", "draw_fields"]

FINAL_QUALITY = 85  # ImageNet-C was saved with it, and so is measured with it

# Values (pixels times channels) worked on at once. A corruption holds at most a dozen float64 buffers of this many:
# the cache of one core's worth on the CPU, 6 GiB on a GPU.
CHUNK = {"cpu": 2**18, "cuda": 2**26}
MOST = 65535  # images at once: a launch counts them along its grid's second axis, which ends there


class Corruption(NamedTuple):
    """One row per corruption."""

    apply: Callable[..., Tensor]  # (images, parameter, fields) -> uint8
    draw: Callable[..., dict] | None = None  # (Key, n, parameter, images) -> fields
    fields: Mapping[str, tuple[str, tuple]] = MappingProxyType({})  # name -> given.KINDS, shape behind the batch
    whole: bool = False  # goes image by image on the CPU, so that it needs no chunks
    fused: Callable[..., Tensor] | None = None  # (name, images, parameter, Key) -> uint8: draws and applies in a kernel

    def generate(self, images: Tensor, parameter: Any, key: Key, name: str) -> Tensor:
        """Draw and apply."""
        assert self.draw is not None
        if self.fused and use_triton(images):
            return self.fused(name, images, parameter, key)
        return self.apply(images, parameter, self.draw(key, images.shape[1], parameter, images))


def _frosted(name: str, images: Tensor, parameter: tuple[float, float], key: Key) -> Tensor:
    return weather.frosted(images, parameter, *drawn.frost_crops(key, images.shape[1]))


# "n" and "passes" stand for the side of the image and the passes of the severity
_NORMAL = {"normal": ("float", ("n", "n", 3))}
_COUNTS = {"counts": ("count", ("n", "n", 3))}
_FLAGS = {"replace": ("bool", ("n", "n", 3)), "salt": ("bool", ("n", "n", 3))}
_SHUFFLE = {"dx": ("shift", ("passes", "n", "n")), "dy": ("shift", ("passes", "n", "n"))}
_SHIFT = {
    "corner_shift": ("float", (3, 2)),
    "dx": ("float", ("n", "n")),
    "dy": ("float", ("n", "n")),
}

TABLE = {
    "gaussian_noise": Corruption(noise.gaussian_noise, drawn.gaussian_noise, _NORMAL, fused=noise_kernels.noise),
    "shot_noise": Corruption(noise.shot_noise, drawn.shot_noise, _COUNTS, fused=noise_kernels.noise),
    "impulse_noise": Corruption(noise.impulse_noise, drawn.impulse_noise, _FLAGS, fused=noise_kernels.noise),
    "defocus_blur": Corruption(blur.defocus_blur),
    "glass_blur": Corruption(blur.glass_blur, drawn.glass_blur, _SHUFFLE),
    "motion_blur": Corruption(blur.motion_blur, drawn.motion_blur, {"angle": ("number", ())}),
    "zoom_blur": Corruption(blur.zoom_blur),
    "snow": Corruption(weather.snow, drawn.snow, {"normal": ("float", ("n", "n")), "angle": ("number", ())}),
    "frost": Corruption(weather.frost, drawn.frost, {"texture": ("uint8", ("n", "n", 3))}, fused=_frosted),
    "fog": Corruption(weather.fog, drawn.fog, {"plasma": ("float", ("n", "n"))}),
    "brightness": Corruption(colour.brightness),
    "contrast": Corruption(colour.contrast),
    "elastic_transform": Corruption(elastic.elastic_transform, drawn.elastic_transform, _SHIFT),
    "pixelate": Corruption(digital.pixelate, whole=True),
    "jpeg_compression": Corruption(digital.jpeg_compression, whole=True),
    "speckle_noise": Corruption(noise.speckle_noise, drawn.speckle_noise, _NORMAL, fused=noise_kernels.noise),
    "gaussian_blur": Corruption(blur.gaussian_blur),
    "spatter": Corruption(spatter.spatter, drawn.spatter, {"normal": ("float", ("n", "n"))}),
    "saturate": Corruption(colour.saturate),
}


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
    """Corrupt a batch as ImageNet-C and CIFAR-C were made.

    images: uint8 [B,n,n,3] RGB. name: one of ``CORRUPTIONS`` or ``EXTRA_CORRUPTIONS``. severity: 1 to 5.
    seed, indices: key of the random numbers; ``indices`` int64 [B] (place in the data set) is needed by corruptions
    that draw, unless ``fields`` gives the random fields themselves (see ``draw_fields``). The host draws from them: on
    a GPU they would be read back, and the host wait.
    constants: "imagenet224", "imagenet299", "tiny64", "cifar32", or "auto" by the size of the images.
    jpeg: ImageNet-C's final JPEG round trip at quality 85. textures: the five frost photographs, uint8 RGB arrays.

    Returns uint8 [B,n,n,3] on the images' device; the input is untouched, and a sample's result does not depend on
    its batch. Raises TypeError or ValueError, one sentence, on bad input.
    """
    row, parameter, constants = _checked(images, name, severity, constants)
    batch, n = images.shape[:2]
    if row.draw is None and fields is None:
        fields = {}
    if fields is not None:
        fields = given.checked(fields, row.fields, name, parameter, images)
    key = None
    if fields is None:
        if indices is None:
            raise ValueError(
                f"{name} draws random numbers: pass indices= (each image's place in the data set) or fields=."
            )
        samples = _samples(indices, batch)
        key = _key(name, severity, seed, samples, n, constants, images.device, textures)

    images = images.contiguous()
    step = min(MOST, max(1, CHUNK["cuda" if row.whole or images.is_cuda else "cpu"] // (n * n * 3)))
    parts = []
    for start, part in zip(range(0, batch, step), images.split(step)):
        here = slice(start, start + step)
        if fields is not None:
            part = row.apply(part, parameter, {field: values[here] for field, values in fields.items()})
        elif key is not None:
            part = row.generate(part, parameter, key._replace(samples=key.samples[here]), name)
        parts.append(jpeg_round_trip(part, FINAL_QUALITY) if jpeg else part)
    return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else images.clone()


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
    """The fields that ``corrupt`` would use for these samples: a dict of tensors, batch first, empty if none is drawn.

    indices: whole numbers [B], on the host. images: uint8 [B,n,n,3], what is to be corrupted. Only shot_noise needs
    them: how many photons a pixel counts depends on its value, so without ``images`` it raises ValueError. The others
    draw the same with or without.

    gaussian_noise, speckle_noise: ``normal`` [B,n,n,3]; shot_noise: ``counts`` [B,n,n,3];
    impulse_noise: ``replace``, ``salt`` bool [B,n,n,3]; glass_blur: ``dx``, ``dy`` [B,passes,n,n] pixels; motion_blur:
    ``angle`` [B] degrees; snow: ``normal`` [B,n,n], ``angle`` [B]; frost: ``texture`` uint8 [B,n,n,3]; fog: ``plasma``
    [B,n,n] in [0,1]; elastic_transform: ``corner_shift`` [B,3,2] pixels (x, y), ``dx``, ``dy`` [B,n,n] in (-1,1) before
    smoothing; spatter: ``normal`` [B,n,n]. ``normal`` is standard normal, float32. Raises ValueError on bad input.
    """
    size = whole("size", size, 1)
    row, parameter, constants = _row(name, severity, size, constants)
    if row.draw is None:
        return {}
    samples = _samples(indices)
    if images is not None:
        images = torch.as_tensor(images)
        if images.dtype != torch.uint8 or tuple(images.shape) != (len(samples), size, size, 3):
            wanted = f"uint8 [{len(samples)},{size},{size},3]"
            raise ValueError(f"images must be {wanted}; got {images.dtype} {tuple(images.shape)}.")
    key = _key(name, severity, seed, samples, size, constants, torch.device(device), textures)
    parts = []
    for start in range(0, max(len(samples), 1), MOST):
        here = slice(start, start + MOST)
        pixels = images[here] if images is not None else None
        part = row.draw(key._replace(samples=samples[here]), size, parameter, pixels)
        parts.append({field: on(values, key.device) for field, values in part.items()})
    return parts[0] if len(parts) == 1 else {field: torch.cat([part[field] for part in parts]) for field in parts[0]}


def _row(name: str, severity: int, size: int, constants: str) -> tuple[Corruption, Any, str]:
    if not isinstance(name, str) or name not in TABLE:
        raise ValueError(nearest("corruption", name, tuple(TABLE)))
    severity = whole("severity", severity, 1, 5)
    constants = resolve(constants, size)
    return TABLE[name], CONSTANTS[constants][name][severity - 1], constants


def _checked(images: Tensor, name: str, severity: int, constants: str) -> tuple[Corruption, Any, str]:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a uint8 tensor [B,n,n,3]; got {type(images).__name__}.")
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 levels from 0 to 255; got {images.dtype}.")
    shape = tuple(images.shape)
    if images.dim() != 4 or shape[3] != 3:
        turn = "; permute(0, 2, 3, 1) puts the channels last" if images.dim() == 4 and shape[1] == 3 else ""
        raise ValueError(f"images must be [B,n,n,3] with channels last; got shape {shape}{turn}.")
    if shape[1] != shape[2] or shape[1] == 0:
        raise ValueError(f"images must be square; got {shape[1]} x {shape[2]} pixels: crop or resize them first.")
    return _row(name, severity, shape[1], constants)


def _samples(indices: Any, batch: int | None = None) -> np.ndarray:
    """int64 [B]: the indices, on the host, which draws from them."""
    samples = np.atleast_1d(indices.cpu().numpy() if isinstance(indices, Tensor) else np.asarray(indices))
    many = "whole numbers" if batch is None else f"{batch} whole numbers"
    if samples.ndim != 1 or len(samples) != (len(samples) if batch is None else batch):
        raise ValueError(f"indices must be {many}, one per image; got shape {samples.shape}.")
    if len(samples) and not np.issubdtype(samples.dtype, np.integer):  # an empty list is of floats
        raise ValueError(f"indices must be {many}, one per image; got {samples.dtype} values.")
    return samples.astype(np.int64)


def _key(name, severity, seed, samples, size, constants, device, textures) -> Key:
    key = Key(whole("seed", seed), samples, int(severity), device)
    if name != "frost":
        return key
    return key._replace(photographs=drawn.photographs(textures, FROST_SCALE[constants], size, device))
