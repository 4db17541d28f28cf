"""Registry rows of auto_augment: one per interpolation, and one with an interpolation per operation."""

from __future__ import annotations

from typing import Any

import torch

from fastreg.kernels.auto_augmentation.apply import PIXELS, apply_kernel, auto_augment_triton
from fastreg.kernels.auto_augmentation.operations import AUTO_AUGMENT_OPERATIONS, INTERPOLATIONS
from fastreg.kernels.auto_augmentation.prepare import BLOCK, prepare_kernel
from fastreg.kernels.auto_augmentation.reference import auto_augment_reference
from fastreg.kernels.registry import Op, Variant

_COUNT = len(AUTO_AUGMENT_OPERATIONS)
# a magnitude in the middle of each operation's range
_MAGNITUDES = (0.0, 0.3, -0.4, 5.3, -7.9, 33.0, 0.4, -0.6, 0.7, -0.9, 3.0, 110.0, 0.0, 0.0, 0.0, 60.0)


def _example(mode: int, slots: int):
    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        """Small: every operation once in the first slot, and one that does not exist."""
        generator = torch.Generator().manual_seed(0)
        B, H, W = (_COUNT + 1, 15, 35) if small else (256, 224, 224)  # two programs, the second not full
        images = torch.randint(0, 256, (B, H, W, 3), dtype=torch.uint8, generator=generator)
        images[B // 2 :] = images[B // 2 :] // 3 + 40
        operations = torch.randint(_COUNT, (B, slots), generator=generator)
        if small:
            operations[:, 0] = torch.arange(B)
        magnitudes = torch.tensor((*_MAGNITUDES, 1.0))[operations]
        modes = None
        if mode == len(INTERPOLATIONS):
            modes = torch.randint(-1 if small else 0, 3, (B, slots), dtype=torch.int8, generator=generator).to(device)
        return {
            "images": images.to(device),
            "operations": operations.to(device),
            "magnitudes": magnitudes.to(device),
            "mode": mode,
            "modes": modes,
            "fill": [9, 200, 31],
        }

    return example


_SIGNATURE = dict.fromkeys(("out", "images", "tables"), "*u8")
_SIGNATURE |= {"matrices": "*fp64", "operations": "*i64", "magnitudes": "*fp32", "modes": "*i8"}
_SIGNATURE |= dict.fromkeys(("slot", "slots", "tiles", "size", "H", "W", "red", "green", "blue"), "i32")


def _variants(mode: int) -> tuple[Variant, ...]:
    name = (*INTERPOLATIONS, "any")[mode]
    sizes = {prepare_kernel: ("BLOCK", BLOCK, BLOCK, 8), apply_kernel: ("PIXELS", PIXELS[mode], 3 * PIXELS[mode], 4)}
    variants = []
    for kernel, (constant, value, elements, warps) in sizes.items():
        constants = {"MODE": mode, constant: value} | ({} if mode == len(INTERPOLATIONS) else {"modes": None})
        types = {name: _SIGNATURE[name] for name in kernel.arg_names if name not in constants}
        label = f"auto_augment {kernel.__name__.removesuffix('_kernel')}, {name}"
        divisible = ("size", "H", "W")
        variants.append(Variant(label, kernel, types, constants, elements, warps, divisible, "gather", fusion=False))
    return tuple(variants)


def _row(name: str, mode: int, slots: int) -> Op:
    return Op(
        name, auto_augment_triton, auto_augment_reference, _example(mode, slots),
        lambda a: 2 * a["images"].numel() * a["operations"].shape[1], _variants(mode),
    )  # fmt: skip


OPS = (
    _row("auto_augment_nearest", 0, 1),
    _row("auto_augment_bilinear", 1, 2),
    _row("auto_augment_bicubic", 2, 1),
    _row("auto_augment_any", 3, 2),
)
