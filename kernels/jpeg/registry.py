"""The registry row of jpeg_round_trip."""

from __future__ import annotations

from typing import Any

import torch

from fastreg.kernels.jpeg.kernels import chroma_kernel, jpeg_triton, luma_kernel
from fastreg.kernels.jpeg.reference import pillow_round_trip
from fastreg.kernels.registry import Op, Variant


def _example(device="cpu", small: bool = True) -> dict[str, Any]:
    shape = (2, 32, 32, 3) if small else (256, 224, 224, 3)
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return {"images": images.to(device), "quality": 25}


def _reference(images: torch.Tensor, quality: int) -> torch.Tensor:
    return pillow_round_trip(images.cpu(), quality).to(images.device)


_SIGNATURE = {
    **dict.fromkeys(("image_ptr", "out_ptr"), "*u8"),
    **dict.fromkeys(("chroma_ptr", "step_ptr", "reciprocal_ptr"), "*i32"),
    **dict.fromkeys(("batch", "height", "width", "across", "down", "pitch"), "i32"),
}


def _variant(label: str, kernel, words: bool, **constants) -> Variant:
    blocks = 64 if words else 16
    constants |= {"WORDS": words, "BLOCKS": blocks}
    divisible = ("height", "width") if words else ()
    return Variant(label, kernel, _SIGNATURE, constants, blocks * 64, 4, divisible, "compute", fusion=False)


OPS = (
    Op(
        "jpeg_round_trip", jpeg_triton, _reference, _example, lambda arguments: 2 * arguments["images"].numel(),
        (
            _variant("jpeg_chroma", chroma_kernel, True),
            _variant("jpeg_luma", luma_kernel, True, FANCY=True),
            _variant("jpeg_chroma_odd", chroma_kernel, False),
            _variant("jpeg_luma_odd", luma_kernel, False, FANCY=True),
        ),
    ),
)  # fmt: skip
