"""``augment``: from uint8 NHWC to normalized channels_last in one launch, for every combination of ``Plan``'s fields.

``reference.py`` holds the formula, ``cpu.py`` the compiled CPU route, ``stream.py`` the kernel for images that keep
their size, ``resample.py`` the kernel for crops and other sizes, ``launch.py`` the choice between the two. A plan with
operations has a stage on uint8 images before, in ``operations.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.augmentation.launch import augment_triton
from fastreg.kernels.augmentation.operations import BLACK, apply_operations, check_operations
from fastreg.kernels.augmentation.reference import augment_reference, draw_normals
from fastreg.kernels.checks import check_range, check_tensor
from fastreg.kernels.dispatch import to_device, use_compiled, use_triton
from fastreg.kernels.types import Plan

__all__ = ["augment"]

# field of Plan: dtype, shape after the batch
_FIELDS: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
    "crop": (torch.float32, (4,)),
    "flip": (torch.bool, ()),
    "noise": (torch.float32, ()),
    "partner": (torch.int64, ()),
    "lam": (torch.float32, ()),
    "box": (torch.int32, (4,)),
    "box_fill": (torch.int8, ()),
    "erase": (torch.int32, (4,)),
    "erase_noise": (torch.float32, ()),
}
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_UNIT = ((0.0,) * 3, (1 / 255,) * 3)  # the mean and standard deviation with which pixels stay on the 0-255 scale
_MAX_BATCH = 65535  # a CUDA grid's second dimension


def augment(
    images: Tensor,
    plan: Plan,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    indices: Tensor | None = None,
    step: int = 0,
    normal: Tensor | None = None,
    fill: Sequence[int] = BLACK,
) -> Tensor:
    """Crop, resize, flip, operate, add noise, mix, erase, normalize and cast a batch, with ``plan``.

    A crop is resampled as by Pillow's ``crop(...).resize(..., BILINEAR)``. A crop and a box may reach outside the
    image. There the crop is black, and the box changes nothing.

    It is one launch. A plan with ``operations`` takes one for crop and flip, those of ``auto_augment``, and one for the
    rest; a sample with a crop out of range is then black.

    Values of ``plan`` are checked on CPU tensors. On a GPU a check would synchronize: there a sample with a partner,
    lam or crop out of range becomes NaN, and a box of fill 0 without a partner is ignored.

    In a CUDA graph ``seed`` and ``step`` are constants of the graph, so give the noise as ``normal``; every tensor must
    be on the device before the capture.

    Args:
        images: uint8 [B, H, W, 3], contiguous, B up to 65535.
        plan: Per-sample parameters, on the images' device, or on the CPU (copied to the device).
        mean: Mean per channel on the 0-1 scale, three numbers.
        std: Standard deviation per channel on the 0-1 scale, three positive numbers.
        dtype: float32, float16 or bfloat16.
        size: Output side or (height, width) in pixels. None: the size of ``images``.
        seed: Run seed of the noise, of ``plan.noise`` and ``plan.erase_noise``.
        indices: int64 [B], positions in the data set (or ``Batch.keys``), which key the noise, on any device. None:
            positions in the batch.
        step: Training step of the noise.
        normal: float32 [N, h, w, 3], standard normals of the noise. None: drawn from ``seed``, ``step``, ``indices``.
        fill: RGB levels, 0 to 255, of pixels that a geometric operation takes from outside the image.

    Returns:
        ``dtype`` [N, 3, h, w], channels_last. N is B, or (1 + V) B for ``plan.operations`` of V views.

    Raises:
        TypeError: An argument has a wrong dtype, or a field of ``plan`` is no tensor.
        ValueError: An argument has a wrong shape, layout, device or value, or fields of ``plan`` do not combine.

    Source:
        Mixup: Zhang et al., 2018; CutMix: Yun et al., 2019; Cutout: DeVries and Taylor, 2017 (mean fill).
    """
    mean, std = ([float(value) for value in values] for values in (mean, std))
    size_ = _check(images, plan, mean, std, dtype, size)
    copies = check_operations(plan, images)
    if plan.noise is None and plan.erase_noise is None:
        normal = indices = None
    elif normal is not None:
        check_tensor("normal", normal, torch.float32, (copies * len(images), *size_, 3))
        indices = None
    elif indices is not None:
        check_tensor("indices", indices, torch.int64, (len(images),))
    else:
        indices = torch.arange(len(images), device=images.device)
    run: Any = _augment_op if torch.compiler.is_compiling() else _augment
    if plan.operations is not None:
        images, plan, indices = apply_operations(images, plan, partial(_to_bytes, run, size_), fill, indices)
    own: Any = [getattr(plan, name) for name in _FIELDS]
    first, last = own[:-2], own[-2:]  # the operator's newest arguments come last
    return run(images, *first, mean, std, dtype, *size_, philox.signed(seed), indices, step, normal, *last)


def _to_bytes(run: Any, size: tuple[int, int], images: Tensor, crop: Tensor | None, flip: Tensor | None) -> Tensor:
    """Images after crop, resize and flip, uint8 [B, h, w, 3]."""
    if crop is None and flip is None and tuple(images.shape[1:3]) == size:
        return images
    mean, std = map(list, _UNIT)
    none = (None, None, None, None, None)  # noise, partner, lam, box, box_fill
    out = run(images, crop, flip, *none, mean, std, torch.uint8, *size, 0, None, 0, None)
    return out.permute(0, 2, 3, 1)


def _augment(
    images: Tensor,
    crop: Tensor | None,
    flip: Tensor | None,
    noise: Tensor | None,
    partner: Tensor | None,
    lam: Tensor | None,
    box: Tensor | None,
    box_fill: Tensor | None,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    height: int,
    width: int,
    seed: int,
    indices: Tensor | None,
    step: int,
    normal: Tensor | None,
    erase: Tensor | None = None,
    erase_noise: Tensor | None = None,
) -> Tensor:
    if not len(images):
        return _empty(images, height, width, dtype)
    device = images.device
    fields = dict(zip(_FIELDS, (crop, flip, noise, partner, lam, box, box_fill, erase, erase_noise)))
    _check_values(Plan(**fields), len(images))
    plan = Plan(**{name: f if f is None else to_device(f, device, f"plan.{name}") for name, f in fields.items()})
    normal = normal if normal is None else normal.contiguous()
    size, mean_, std_ = (height, width), tuple(mean), tuple(std)
    if use_triton(images):
        indices = indices if indices is None else to_device(indices, device, "indices")
        return augment_triton(
            images,
            plan,
            mean=mean_,
            std=std_,
            dtype=dtype,
            size=size,
            seed=seed,
            indices=indices,
            step=step,
            normal=normal,
        )
    if indices is not None:
        normal = draw_normals(seed, indices, step, size, device)
    apply = augment_reference
    if use_compiled(images, *plan, normal):
        from fastreg.kernels.augmentation.cpu import augment_cpu as apply
    return apply(images, plan, mean=mean_, std=std_, dtype=dtype, size=size, normal=normal)


# torch.compile sees one opaque operator: it has nothing to fuse. Eager calls bypass torch.library, whose bookkeeping
# costs more than the launch.
_augment_op = torch.library.custom_op("fastreg::augment", _augment, mutates_args=())


def _empty(images: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return images.new_empty((len(images), height, width, 3), dtype=dtype).permute(0, 3, 1, 2)


@_augment_op.register_fake
def _(images: Tensor, *arguments: Any) -> Tensor:
    dtype, height, width = arguments[9:12]
    return _empty(images, height, width, dtype)


def _check(images: Tensor, plan: Plan, mean: Any, std: Any, dtype: torch.dtype, size: Any) -> tuple[int, int]:
    """Check the arguments and return the output size. Values are read on the CPU only."""
    if images.dtype != torch.uint8:
        raise TypeError(f"`images` is {images.dtype}: give torch.uint8 [B, H, W, 3], the loader's bytes.")
    if images.dim() != 4 or images.shape[-1] != 3 or 0 in images.shape[1:]:
        raise ValueError(f"`images` has shape {list(images.shape)}: give [B, H, W, 3] with H and W of 1 or more.")
    if len(images) > _MAX_BATCH:
        raise ValueError(f"`images` has {len(images)} images: give {_MAX_BATCH} or fewer at a time.")
    if not images.is_contiguous():
        raise ValueError("`images` is not contiguous NHWC: call .contiguous() first.")
    if images.device.type not in ("cpu", "cuda"):
        raise ValueError(f"`images` is on {images.device.type!r}: give a CPU or CUDA tensor.")
    if dtype not in _DTYPES:
        raise TypeError(f"`dtype` is {dtype}: give torch.float32, torch.float16 or torch.bfloat16.")
    if len(mean) != 3 or len(std) != 3 or not all(s > 0 for s in std):
        raise ValueError(f"`mean` is {mean} and `std` is {std}: give three means and three positive deviations.")
    sides = images.shape[1:3] if size is None else (size, size) if isinstance(size, Integral) else size
    if size is not None:
        if not isinstance(sides, Sequence) or len(sides) != 2 or not all(isinstance(s, Integral) for s in sides):
            raise ValueError(f"`size` is {size!r}: give one whole number or two (height, width).")
        if min(sides) < 1:
            raise ValueError(f"`size` is {size}: give 1 or more.")
    B = len(images)
    for name, (field_dtype, shape) in _FIELDS.items():
        field = getattr(plan, name)
        if field is not None:
            check_tensor(f"plan.{name}", field, field_dtype, (B, *shape))
            if field.device != images.device and field.device.type != "cpu":
                raise ValueError(f"`plan.{name}` is on {field.device}: give it on {images.device} or on the CPU.")
    if plan.partner is None and plan.lam is not None:
        raise ValueError("`plan.lam` blends with a partner: give `plan.partner`.")
    if plan.partner is None and plan.box is not None and plan.box_fill is None:
        raise ValueError("`plan.box` pastes the partner's pixels: give `plan.partner`, or `plan.box_fill`.")
    if plan.box is None and plan.box_fill is not None:
        raise ValueError("`plan.box_fill` fills a box: give `plan.box`.")
    if plan.erase is None and plan.erase_noise is not None:
        raise ValueError("`plan.erase_noise` fills an erased box: give `plan.erase`.")
    return int(sides[0]), int(sides[1])


def _check_values(plan: Plan, B: int) -> None:
    """Check the values of fields on the CPU: reading those on a GPU would synchronize."""
    bounds: dict[str, tuple[float, float]] = {"partner": (0, B - 1), "lam": (0, 1), "box_fill": (0, 2)}
    bounds |= dict.fromkeys(("noise", "erase_noise"), (0, float("inf")))
    for name, (low, high) in bounds.items():
        field = getattr(plan, name)
        if field is not None and not field.is_cuda:
            check_range(f"plan.{name}", field, low, high)
    if plan.partner is None and plan.box_fill is not None and not plan.box_fill.is_cuda and (plan.box_fill == 0).any():
        raise ValueError("`plan.box_fill` 0 pastes the partner's pixels: give `plan.partner`, or fill with 1 or 2.")
    if plan.crop is not None and not plan.crop.is_cuda:
        if not plan.crop.isfinite().all() or not (plan.crop[:, 2:] > 0).all():
            raise ValueError("`plan.crop` holds a height or width that is not positive and finite: give positive ones.")
