"""The registry row of color_jitter."""

from __future__ import annotations

from typing import Any

import torch

from fastreg.kernels.color import color_jitter
from fastreg.kernels.color.kernels import GROUPS, gray_kernel, jitter_kernel
from fastreg.kernels.color.reference import color_jitter_reference
from fastreg.kernels.registry import Op, Variant


def _example(device="cpu", small: bool = True) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    B, H, W = (3, 20, 116) if small else (256, 224, 224)  # two programs, the second not full
    images = torch.randint(0, 256, (B, H, W, 3), dtype=torch.uint8, generator=generator)
    factors = 0.6 + 0.8 * torch.rand((3, B), generator=generator)
    factors[:, 0] = 1.0
    lighting = 0.1 * torch.randn((B, 3), generator=generator)
    names = ("brightness", "contrast", "saturation")
    return {
        "images": images.to(device),
        **{name: factor.to(device) for name, factor in zip(names, factors)},
        "lighting": lighting.to(device),
    }


_SIGNATURE = dict.fromkeys(("sums", "words", "out"), "*i32")
_SIGNATURE |= dict.fromkeys(("brightness", "contrast", "saturation", "lighting"), "*fp32")
_SIGNATURE |= {"unit": "fp32", "programs": "i32"}
_SHAPE = {"PIXELS": 224 * 224, "GROUPS": GROUPS}

OPS = (
    Op(
        "color_jitter", color_jitter, color_jitter_reference, _example, lambda a: 2 * a["images"].numel(),
        (
            Variant(
                "color_jitter", jitter_kernel, _SIGNATURE, _SHAPE | {"PROGRAMS": 32, "LIGHTING": True}, GROUPS * 48,
            ),
            Variant("color_jitter gray", gray_kernel, _SIGNATURE, _SHAPE, GROUPS * 48, kind="compute"),
        ),
        # a fused multiply-add rounds once where torch rounds twice: halves of a level may go either way
        rare=1e-4, rare_tolerance=1.0, compiled=color_jitter,
    ),
)  # fmt: skip
