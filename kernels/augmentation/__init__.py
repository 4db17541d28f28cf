"""``augment``: one launch from uint8 NHWC to normalised channels_last, for every combination in ``Plan``.

``plain`` is the reference, ``stream`` the kernel for images that keep their size, ``resample`` the one that gathers.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.augmentation.launch import augment_triton
from fastreg.kernels.augmentation.reference import augment_plain, drawn_normals
from fastreg.kernels.dispatch import sent, use_triton
from fastreg.kernels.types import Plan

__all__ = ["augment"]

# field: dtype, shape after the batch
_FIELDS: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
    "crop": (torch.float32, (4,)),
    "flip": (torch.bool, ()),
    "noise": (torch.float32, ()),
    "partner": (torch.int64, ()),
    "lam": (torch.float32, ()),
    "box": (torch.int32, (4,)),
    "box_fill": (torch.int8, ()),
}
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


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
) -> Tensor:
    """Crop, resize, flip, add noise, mix, erase, normalise, cast and lay out a batch, as ``plan`` says per sample.

    images: uint8 [B, H, W, 3], contiguous. ``mean``, ``std``: per channel, on the 0-1 scale. ``dtype``: float32,
    float16 or bfloat16. ``size``: the output's side or (h, w); default the input's. Returns [B, 3, h, w] of ``dtype``
    in channels_last layout. Fields of ``plan`` may lie on the CPU: they are sent to the images' device.

    A ``crop`` may leave the canvas (CIFAR's shift by padding): what lies outside is black. It is resampled as Pillow's
    ``crop(...).resize(..., BILINEAR)`` does it. ``box`` may leave the image. ``box_fill`` None pastes the partner.

    ``plan.noise`` draws one standard normal per output pixel and channel, keyed by ``seed``, ``step`` and ``indices``
    (int64 [B], any device); without these by the place in the batch. Or it takes the field itself as ``normal``,
    float32 [B, h, w, 3].

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, layout, device or combination. Values (partner in
    [0, B), lam in [0, 1], noise >= 0, crops that have a size) are checked on CPU tensors; on the GPU, where a check
    would stop the stream, a sample whose partner, lam or crop is out of range comes back as NaN, and a box of fill 0
    without a partner is left alone.

    In a CUDA graph, ``seed`` and ``step`` are constants: there give the noise as ``normal``. Whatever is captured must
    lie on the device before.

    Sources: Mixup, Zhang et al. 2018; CutMix, Yun et al. 2019; Cutout, DeVries and Taylor 2017 (mean fill).
    """
    mean, std = ([float(value) for value in values] for values in (mean, std))
    size_ = _check(images, plan, mean, std, dtype, size)
    if plan.noise is None:
        normal = indices = None
    elif normal is not None:
        _check_field("normal", normal, torch.float32, (len(images), *size_, 3))
        indices = None
    elif indices is not None:
        _check_field("indices", indices, torch.int64, (len(images),))
    else:
        indices = torch.arange(len(images), device=images.device)
    run = _augment_op if torch.compiler.is_compiling() else _augment
    return run(images, *plan, mean, std, dtype, *size_, philox.signed(seed), indices, step, normal)


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
) -> Tensor:
    if not len(images):
        return _empty(images, height, width, dtype)
    device = images.device
    fields = dict(zip(_FIELDS, (crop, flip, noise, partner, lam, box, box_fill)))
    plan = Plan(**{name: f if f is None else sent(f, device, f"plan.{name}") for name, f in fields.items()})
    normal = normal if normal is None else normal.contiguous()
    size, mean_, std_ = (height, width), tuple(mean), tuple(std)
    if use_triton(images):
        indices = indices if indices is None else sent(indices, device, "indices")
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
        normal = drawn_normals(seed, indices, step, size, device)
    return augment_plain(images, plan, mean=mean_, std=std_, dtype=dtype, size=size, normal=normal)


# torch.compile sees one opaque operator (there is nothing to fuse with); eager calls go past torch.library, whose
# bookkeeping would cost more than the launch.
_augment_op = torch.library.custom_op("fastreg::augment", _augment, mutates_args=())


def _empty(images: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return images.new_empty((len(images), height, width, 3), dtype=dtype).permute(0, 3, 1, 2)


@_augment_op.register_fake
def _(images, *arguments):
    dtype, height, width = arguments[9:12]
    return _empty(images, height, width, dtype)


def _check(images, plan, mean, std, dtype, size) -> tuple[int, int]:
    """The output size, once the arguments are known to be good. Looks at values on the CPU only."""
    if images.dtype != torch.uint8:
        raise TypeError(f"augment needs uint8 images, got {images.dtype}: hand over the loader's bytes")
    if images.dim() != 4 or images.shape[-1] != 3 or 0 in images.shape[1:]:
        raise ValueError(f"augment needs images [B, H, W, 3] of a pixel or more, got {tuple(images.shape)}")
    if len(images) > 65535:
        raise ValueError(f"augment takes up to 65535 images at a time, got {len(images)}")
    if not images.is_contiguous():
        raise ValueError("augment needs contiguous NHWC images: call .contiguous() first")
    if images.device.type not in ("cpu", "cuda"):
        raise ValueError(f"augment works on CPU and CUDA images, not on {images.device.type!r}")
    if dtype not in _DTYPES:
        raise TypeError(f"augment returns float32, float16 or bfloat16, not {dtype}")
    if len(mean) != 3 or len(std) != 3 or not all(s > 0 for s in std):
        raise ValueError(f"augment needs three means and three positive stds, got {mean} and {std}")
    sides = images.shape[1:3] if size is None else (size, size) if isinstance(size, Integral) else size
    if size is not None:
        if not isinstance(sides, Sequence) or len(sides) != 2 or not all(isinstance(s, Integral) for s in sides):
            raise ValueError(f"augment needs a size of a whole number or two, got {size!r}")
        if min(sides) < 1:
            raise ValueError(f"augment needs a positive size, got {size}")
    B = len(images)
    for name, (field_dtype, shape) in _FIELDS.items():
        field = getattr(plan, name)
        if field is not None:
            _check_field(f"plan.{name}", field, field_dtype, (B, *shape))
            if field.device != images.device and field.device.type != "cpu":
                raise ValueError(f"plan.{name} is on {field.device} but the images are on {images.device}")
    if plan.partner is None and plan.lam is not None:
        raise ValueError("plan.lam blends with a partner: give plan.partner")
    if plan.partner is None and plan.box is not None and plan.box_fill is None:
        raise ValueError("plan.box pastes the partner's pixels: give plan.partner, or plan.box_fill")
    if plan.box is None and plan.box_fill is not None:
        raise ValueError("plan.box_fill fills a box: give plan.box")
    _check_values(plan, B)
    return int(sides[0]), int(sides[1])


def _check_field(name: str, field: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if not isinstance(field, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(field).__name__}")
    if field.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {field.dtype}")
    if tuple(field.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(field.shape)}")


def _check_values(plan: Plan, B: int) -> None:
    """What can be seen without stopping a GPU: the fields that lie on the CPU."""
    if torch.compiler.is_compiling():
        return
    bounds = {"partner": (0, B - 1), "lam": (0, 1), "noise": (0, float("inf")), "box_fill": (0, 2)}
    for name, (low, high) in bounds.items():
        field = getattr(plan, name)
        if field is not None and not field.is_cuda and not ((field >= low) & (field <= high)).all():
            raise ValueError(f"plan.{name} must lie in [{low}, {high}], got {field.tolist()[:8]}")
    if plan.partner is None and plan.box_fill is not None and not plan.box_fill.is_cuda and (plan.box_fill == 0).any():
        raise ValueError("plan.box_fill 0 pastes the partner's pixels: give plan.partner, or fill with 1 or 2")
    if plan.crop is not None and not plan.crop.is_cuda:
        if not plan.crop.isfinite().all() or not (plan.crop[:, 2:] > 0).all():
            raise ValueError("plan.crop needs positive heights and widths, all of it finite")
