"""Levels to numbers and back, borders, small arrays on the device: shared by every corruption.

    unit      level / 255, correctly rounded          quantize  clip(x, 0, 1) * 255, truncated

Truncation to uint8 turns a rounding error of 1e-16 into a whole level wherever a result lands on an integer, as in
every flat area. So the order of floating-point operations in this package is that of the libraries which the published
code calls, and quotients are correctly rounded: torch on CUDA multiplies by the reciprocal of a Python number, which
differs in the last bit.

Bytes per value: unit 1 + 4 or 8, quantize 4 or 8 + 1. Last measured: not yet measured.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.examples import levels, variant
from fastreg.kernels.dispatch import tl, triton, use_triton
from fastreg.kernels.registry import Op

BLOCK = 1024


class Textures(NamedTuple):
    """The five frost textures, one after the other."""

    pixels: Tensor  # uint8 [sum of rows times columns, 3] on the device
    start: np.ndarray  # int64 [5], first pixel of each
    rows: np.ndarray  # int64 [5]
    columns: np.ndarray  # int64 [5]


def on(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """A small array on the device. The host does not wait for the copy."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def unit(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """uint8 levels as numbers in [0, 1]."""
    if use_triton(images):
        return unit_triton(images, dtype)
    return images.to(dtype).div_(255)


def quantize(x: Tensor) -> Tensor:
    """Numbers on the 0-1 scale as uint8: clip, times 255, truncate. ``x`` may be overwritten."""
    if use_triton(x):
        return quantize_triton(x)
    return x.clamp_(0, 1).mul_(255).int().to(torch.uint8)  # straight to bytes takes three times as long


def border(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """Source index int64 [before + n + after] of a padded line. ``mode``: "edge", "mirror" (edge pixel twice) or
    "mirror101"."""
    i = np.arange(-before, n + after)
    if mode == "edge" or n == 1:
        return i.clip(0, n - 1)
    period = 2 * n if mode == "mirror" else 2 * n - 2
    i = i % period
    return np.where(i < n, i, period - 1 - i if mode == "mirror" else period - i)


@triton.jit
def triton_unit(level):
    """float64: the correctly rounded level / 255 without a division, as 1 / 255 = 257 / 65536 (1 + 1 / 65535)."""
    x = (level.to(tl.int32) * 257).to(tl.float64) * 1.52587890625e-05
    return x + x * 1.5259021896696422e-05


@triton.jit
def triton_level(x):
    """Numbers on the 0-1 scale as uint8: clip, times 255, truncate."""
    return (tl.minimum(tl.maximum(x, 0.0), 1.0) * 255.0).to(tl.int32).to(tl.uint8)


@triton.jit
def unit_kernel(images_ptr, out_ptr, count, BLOCK: tl.constexpr):
    value = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    level = tl.load(images_ptr + value, mask=value < count, other=0)
    if out_ptr.dtype.element_ty == tl.float64:
        x = triton_unit(level)
    else:
        x = tl.math.div_rn(level.to(tl.float32), 255.0)
    tl.store(out_ptr + value, x, mask=value < count)


def unit_triton(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 levels as float32 or float64 numbers in [0, 1]."""
    images = images.contiguous()
    out = torch.empty_like(images, dtype=dtype)
    count = images.numel()
    unit_kernel[(triton.cdiv(count, BLOCK),)](images, out, count, BLOCK=BLOCK, enable_fp_fusion=False)
    return out


@triton.jit
def quantize_kernel(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    value = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + value, mask=value < count, other=0.0)
    tl.store(out_ptr + value, triton_level(x), mask=value < count)


def quantize_triton(x: Tensor) -> Tensor:
    """float32 or float64 numbers on the 0-1 scale as uint8."""
    x = x.contiguous()
    out = torch.empty_like(x, dtype=torch.uint8)
    quantize_kernel[(triton.cdiv(x.numel(), BLOCK),)](x, out, x.numel(), BLOCK=BLOCK, enable_fp_fusion=False)
    return out


def unit_reference(images: Tensor, dtype: torch.dtype) -> Tensor:
    """The correctly rounded quotient on every device, from a table."""
    table = torch.from_numpy(np.arange(256) / np.array(255, str(dtype).removeprefix("torch."))).to(dtype)
    return table.to(images.device)[images.long()]


def _unit_example(dtype: torch.dtype):
    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        return {"images": levels(device, small), "dtype": dtype}

    return example


def _quantize_example(device="cpu", small: bool = True) -> dict[str, Any]:
    return {"x": unit_reference(levels(device, small), torch.float64) * 1.25 - 0.1}


OPS = (
    Op(
        "unit_double", unit_triton, unit_reference, _unit_example(torch.float64), lambda a: 9 * a["images"].numel(),
        (variant("unit_double", unit_kernel, BLOCK, "stream", {"out_ptr": "*fp64"}),),
    ),
    Op(
        "unit_float", unit_triton, unit_reference, _unit_example(torch.float32), lambda a: 5 * a["images"].numel(),
        (variant("unit_float", unit_kernel, BLOCK, "stream", {"out_ptr": "*fp32"}),),
    ),
    Op(
        "quantise", quantize_triton, lambda x: (x.clamp(0, 1) * 255).to(torch.uint8), _quantize_example,
        lambda a: 9 * a["x"].numel(),
        (
            variant("quantise", quantize_kernel, BLOCK, "stream"),
            variant("quantise_float", quantize_kernel, BLOCK, "stream", {"x_ptr": "*fp32"}),
        ),
    ),
)  # fmt: skip
