"""``auto_augment``: the operations of automatic augmentation, K per sample, uint8 to uint8, before ``augment``.

``operations.py`` holds the names, ``cpu.py`` the route of CPU tensors, ``prepare.py`` and ``apply.py`` the kernels of a
slot, ``matrix.py`` the coefficients of the geometric operations, ``reference.py`` the same arithmetic in plain torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from fastreg.kernels.auto_augmentation.apply import auto_augment_triton, supports
from fastreg.kernels.auto_augmentation.cpu import auto_augment_cpu
from fastreg.kernels.auto_augmentation.operations import AUTO_AUGMENT_OPERATIONS, INTERPOLATIONS
from fastreg.kernels.auto_augmentation.reference import auto_augment_reference
from fastreg.kernels.checks import check_range, check_tensor
from fastreg.kernels.dispatch import use_triton

__all__ = ["AUTO_AUGMENT_OPERATIONS", "auto_augment"]


def auto_augment(
    images: Tensor,
    operations: Tensor,
    magnitudes: Tensor,
    *,
    interpolation: str | Tensor = "nearest",
    fill: Sequence[int] = (0, 0, 0),
) -> Tensor:
    """Apply K operations of automatic augmentation to each image, one after the other.

    An operation acts on a magnitude m as torchvision's ``_apply_op`` on a PIL image:

    * ShearX: out(x, y) = in(x + m y, y); ShearY: out(x, y) = in(x, y + m x). The origin is the top-left corner.
    * TranslateX, TranslateY: int(m) pixels to the right, or down.
    * Rotate: m degrees counter-clockwise about the center.
    * Brightness, Color, Contrast, Sharpness: Pillow's ``ImageEnhance`` with the factor 1 + m.
    * Posterize: int(m) high bits are kept; 0 or less gives zeros, 8 or more changes nothing.
    * Solarize: v >= m becomes 255 - v. SolarizeAdd (timm's): v < 128 becomes v + int(m), clipped.
    * Identity, AutoContrast, Equalize, Invert: m has no effect.

    Values of ``operations``, ``magnitudes`` and ``interpolation`` are checked on CPU tensors. On a GPU a check would
    synchronize: there an operation or interpolation out of range leaves its sample unchanged.

    Args:
        images: uint8 [B, H, W, 3], RGB.
        operations: int64 [B, K], indices into ``AUTO_AUGMENT_OPERATIONS``, on the images' device. K may be 0.
        magnitudes: float32 [B, K], finite, on the images' device.
        interpolation: Of the geometric operations: "nearest", "bilinear" or "bicubic", or one per operation: int8 or
            int64 [B, K] on the images' device, 0, 1 or 2 in that order.
        fill: RGB levels from 0 to 255 of pixels that a geometric operation takes from outside the image.

    Returns:
        uint8 [B, H, W, 3], a new contiguous tensor. With K = 0 it is a copy.

    Raises:
        TypeError: A tensor has another dtype, or ``fill`` holds something else than whole numbers.
        ValueError: A tensor has another shape or device, ``operations`` or ``interpolation`` is out of range,
            ``magnitudes`` is not finite, or ``fill`` is not three levels.

    Source:
        AutoAugment: Cubuk et al., 2019; RandAugment: Cubuk et al., 2020; TrivialAugment: Müller and Hutter, 2021;
        torchvision, transforms/autoaugment.py; timm, data/auto_augment.py (SolarizeAdd); Pillow.
    """
    mode, modes, fill_ = _check(images, operations, magnitudes, interpolation, fill)
    run = _auto_augment_op if torch.compiler.is_compiling() else _auto_augment
    return run(images, operations, magnitudes, mode, modes, fill_)


def _auto_augment(
    images: Tensor, operations: Tensor, magnitudes: Tensor, mode: int, modes: Tensor | None, fill: list[int]
) -> Tensor:
    if operations.device.type == "cpu":
        _check_values(operations, magnitudes, modes)
    if operations.numel() == 0:
        return images.clone(memory_format=torch.contiguous_format)
    images, operations, magnitudes = images.contiguous(), operations.contiguous(), magnitudes.contiguous()
    modes = modes if modes is None else modes.contiguous()
    if use_triton(images) and supports(images):
        run = auto_augment_triton
    else:
        run = auto_augment_cpu if images.device.type == "cpu" else auto_augment_reference
    return run(images, operations, magnitudes, mode, modes, fill)


# The operator that torch.compile sees; eager calls bypass torch.library.
_auto_augment_op = torch.library.custom_op("fastreg::auto_augment", _auto_augment, mutates_args=())


@_auto_augment_op.register_fake
def _(images: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(images, memory_format=torch.contiguous_format)


def _check(
    images: Tensor, operations: Tensor, magnitudes: Tensor, interpolation: str | Tensor, fill: Sequence[int]
) -> tuple[int, Tensor | None, list[int]]:
    """The interpolation of all operations, or that of each, and the fill as a list."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"`images` is {found}: give a torch.uint8 tensor [B, H, W, 3].")
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise ValueError(f"`images` has shape {list(images.shape)}: give [B, H, W, 3] with H and W of 1 or more.")
    slots = operations.shape[1] if isinstance(operations, Tensor) and operations.ndim == 2 else 1
    shape = (len(images), slots)
    check_tensor("operations", operations, torch.int64, shape, images.device)
    check_tensor("magnitudes", magnitudes, torch.float32, shape, images.device)
    mode, modes = 0, None
    if isinstance(interpolation, Tensor):
        modes = interpolation
        dtype = torch.int64 if modes.dtype == torch.int64 else torch.int8
        check_tensor("interpolation", modes, dtype, shape, images.device)
    elif interpolation in INTERPOLATIONS:
        mode = INTERPOLATIONS.index(interpolation)
    else:
        raise ValueError(f"`interpolation` is {interpolation!r}: give {', '.join(INTERPOLATIONS)}, or int8 [B, K].")
    wanted = f"`fill` is {fill!r}: give three whole numbers from 0 to 255."
    if not isinstance(fill, Sequence) or not all(isinstance(level, Integral) for level in fill):
        raise TypeError(wanted)
    if len(fill) != 3 or not all(0 <= level <= 255 for level in fill):
        raise ValueError(wanted)
    return mode, modes, [int(level) for level in fill]


def _check_values(operations: Tensor, magnitudes: Tensor, modes: Tensor | None) -> None:
    check_range("operations", operations, 0, len(AUTO_AUGMENT_OPERATIONS) - 1)
    if modes is not None:
        check_range("interpolation", modes, 0, len(INTERPOLATIONS) - 1)
    if not magnitudes.isfinite().all():
        raise ValueError(f"`magnitudes` holds {magnitudes[~magnitudes.isfinite()].tolist()[:8]}: give finite values.")
