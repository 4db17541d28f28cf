"""The registry rows of the attacks."""

from __future__ import annotations

from typing import Any

import torch

from fastreg.kernels.attacks import fgsm_step, start_in_ball
from fastreg.kernels.attacks.kernels import START, STEP, start_kernel, step_kernel
from fastreg.kernels.attacks.reference import fgsm_step_reference, start_in_ball_reference
from fastreg.kernels.registry import Op, Variant


def _images(device, small: bool) -> torch.Tensor:
    shape = (3, 3, 10, 11) if small else (256, 3, 224, 224)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device, memory_format=torch.channels_last)


def _step(device="cpu", small: bool = True) -> dict[str, Any]:
    images = _images(device, small)
    grad = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).to(images)
    if not small:  # the small gradient has another layout than the images, and is copied
        grad = grad.to(memory_format=torch.channels_last)
    grad[0, 0, 0, :3] = torch.tensor([0.0, float("nan"), -0.0])
    return {"images": images, "grad": grad, "epsilon": 8 / 255, "clip": True, "origin": None, "radius": None}


def _projected(device="cpu", small: bool = True) -> dict[str, Any]:
    case = _step(device, small)
    return case | {"origin": (case["images"] - 0.03).clamp(0, 1), "radius": 4 / 255}


def _start(device="cpu", small: bool = True) -> dict[str, Any]:
    images = _images(device, small)
    return {
        "images": images,
        "epsilon": 8 / 255,
        "seed": 2**40 + 5,
        "indices": torch.arange(len(images)) + 2**31,
        "clip": True,
    }


def _bytes(arguments: dict[str, Any]) -> int:
    tensors = [t for t in arguments.values() if isinstance(t, torch.Tensor) and t.is_floating_point()]
    return sum(t.numel() * t.element_size() for t in tensors) + 4 * arguments["images"].numel()


_POINTERS = dict.fromkeys(("out", "images", "grad", "origin"), "*fp32") | {"indices": "*i64"}
_NUMBERS = {"epsilon": "fp32", "radius": "fp32", "seed": "i64"}
_SIGNATURE = _POINTERS | _NUMBERS | dict.fromkeys(("n", "W", *(f"stride_{d}" for d in "bcyx")), "i32")


def _variant(label: str, kernel, elements: int, warps: int, kind: str, **constants) -> Variant:
    constants |= {"BLOCK": elements, "CLIP": True}
    divisible = ("n", "W", "stride_b", "stride_y")
    return Variant(label, kernel, _SIGNATURE, constants, elements, warps, divisible, kind)


OPS = (
    Op(
        "fgsm_step", fgsm_step, fgsm_step_reference, _step, _bytes,
        (_variant("fgsm_step", step_kernel, STEP, 8, "stream", PROJECT=False),), tolerance=1e-7, compiled=fgsm_step,
    ),
    Op(
        "pgd_step", fgsm_step, fgsm_step_reference, _projected, _bytes,
        (_variant("pgd_step", step_kernel, STEP, 8, "stream", PROJECT=True),), tolerance=1e-7, compiled=fgsm_step,
    ),
    Op(
        "random_start", start_in_ball, start_in_ball_reference, _start, _bytes,
        (_variant("random_start", start_kernel, START, 4, "compute", C=3, OPERATION=17, stride_c=1),), tolerance=1e-7,
    ),
)  # fmt: skip
