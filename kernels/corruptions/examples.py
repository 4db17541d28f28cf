"""Arguments and compilations that rows of the registry share. Large examples are ImageNet-C's costliest severities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.registry import Variant


def levels(device, small: bool) -> Tensor:
    """uint8 [B, n, n, 3] noise."""
    shape = (2, 19, 19, 3) if small else (256, 224, 224, 3)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8).to(device)


def flat_levels(device, small: bool) -> Tensor:
    """``levels``, of which every second image has four levels: equal channels and flat areas."""
    images = levels(device, small)
    images[1::2] = images[1::2] // 85 * 85
    return images


def uniform(device, *shape: int) -> Tensor:
    """float32 numbers in [0, 1)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(device)


def numbers(device, *values: float) -> Tensor:
    """float64 tensor. Triton would pass a Python number as float32."""
    return torch.from_numpy(np.array(values, float)).to(device)


def touched(arguments: dict[str, Any]) -> int:
    """Bytes of every tensor read once, and of an output like the first written once."""
    tensors = [t for t in arguments.values() if isinstance(t, Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors) + tensors[0].numel() * tensors[0].element_size()


_TYPES = {
    **dict.fromkeys(("images_ptr", "levels_ptr", "out_ptr", "pixels_ptr", "layer_ptr", "brightest_ptr"), "*u8"),
    **dict.fromkeys(("samples_ptr", "table_ptr", "left_ptr", "first_ptr", "count_ptr", "sums_ptr"), "*i32"),
    **dict.fromkeys(("x_ptr", "weights_ptr", "place_ptr", "alpha_ptr", "sigma_ptr", "change_ptr"), "*fp64"),
    **dict.fromkeys(("factor_ptr", "amount_ptr", "law_ptr", "scale_ptr", "low_ptr", "high_ptr", "height_ptr"), "*fp64"),
    **dict.fromkeys(("weight_ptr", "uniform_ptr", "plasma_ptr", "normal_ptr"), "*fp32"),
    **dict.fromkeys(("n", "radius", "taps", "zooms", "reach", "passes", "step", "count", "span"), "i32"),
    **dict.fromkeys(("pixels", "programs", "side"), "i32"),
    **dict.fromkeys(("weight", "white"), "fp32"),
    "stride_ptr": "*i64",
    "seed": "i64",
}


def variant(
    label: str,
    kernel,
    block: int,
    kind: str = "gather",
    types: dict[str, str] | None = None,
    *,
    elements: int = 0,
    divisible: tuple[str, ...] = (),
    **constants,
) -> Variant:
    """A compilation with ``block`` as BLOCK and the usual types of arguments, but for ``types``. Every kernel of the
    corruptions rounds each multiplication and addition."""
    divisible = ("count", "pixels", "n", "side", *divisible)
    signature, constants = _TYPES | (types or {}), {"BLOCK": block, **constants}
    return Variant(label, kernel, signature, constants, elements or block, 4, divisible, kind, fusion=False)
