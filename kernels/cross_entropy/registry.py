"""The registry rows of the cross-entropy, one per class count that takes another path in the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastreg.kernels.cross_entropy import mixed_cross_entropy, scored_cross_entropy
from fastreg.kernels.cross_entropy.backward import FLAT, backward_flat_kernel, backward_tile_kernel
from fastreg.kernels.cross_entropy.binary_registry import OPS as BINARY_OPS
from fastreg.kernels.cross_entropy.examples import SIGNATURE, SIZES, logit_bytes, pair_example, with_gradient
from fastreg.kernels.cross_entropy.forward import LONG, forward_long_kernel, forward_tile_kernel, reduce_kernel
from fastreg.kernels.cross_entropy.weighted_registry import OPS as WEIGHTED_OPS
from fastreg.kernels.registry import Op, Variant
from fastreg.kernels.types import Targets


def _triton(**arguments) -> tuple[Tensor, ...]:
    return with_gradient(mixed_cross_entropy, **arguments)


def _scored(**arguments) -> tuple[Tensor, ...]:
    return with_gradient(scored_cross_entropy, **arguments)


def _rows64(logits: Tensor, targets: Targets, eps: float) -> tuple[Tensor, Tensor]:
    z = logits.double()
    a, b = (cross_entropy(z, t, reduction="none", label_smoothing=eps) for t in (targets.a, targets.b))
    return a, b


def _loss64(logits: Tensor, targets: Targets, label_smoothing: float) -> Tensor:
    """torch's cross-entropy in float64 on each label."""
    a, b = _rows64(logits, targets, label_smoothing)
    weights = [s * (t >= 0) for s, t in ((targets.lam, targets.a), (1 - targets.lam, targets.b))]
    return (weights[0] * a + weights[1] * b).sum() / (weights[0] + weights[1]).sum()


def _scores64(logits: Tensor, targets: Targets, label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    a, b = _rows64(logits, targets, label_smoothing)
    confidence, best = logits.detach().double().softmax(1).max(1)
    hit = targets.lam * (best == targets.a) + (1 - targets.lam) * (best == targets.b)
    return targets.lam * a + (1 - targets.lam) * b, hit, confidence


def _reference(**arguments) -> tuple[Tensor, ...]:
    return with_gradient(_loss64, **arguments)


def _scored_reference(**arguments) -> tuple[Tensor, ...]:
    return with_gradient(_scores64, **arguments)


def _variant(label: str, kernel, elements: int, warps: int, kind: str = "stream", **constants) -> Variant:
    constants = {"PAIR": True, "EPS": False, "SMOOTH": True, "SCORE": False, "WEIGH": True, "MEAN": True, **constants}
    signature = SIGNATURE | ({"out": "*fp32"} if kernel is reduce_kernel else {})
    constants = {k: v for k, v in constants.items() if k in kernel.arg_names}
    return Variant(label, kernel, signature, constants, elements, warps, ("B", "grad_stride"), kind)


_AOT = {
    "1000": (
        _variant("loss_forward 1000", forward_tile_kernel, 1000, 4, C=1000, ROWS=1, BLOCK=1024),
        _variant("loss_forward 1000, scored", forward_tile_kernel, 1000, 4, C=1000, ROWS=1, BLOCK=1024, SCORE=True),
        _variant("loss_backward 1000", backward_tile_kernel, 1000, 4, C=1000, ROWS=1, BLOCK=1024),
        _variant("loss_reduce", reduce_kernel, 1024, 4, "compute", BLOCK=1024),
    ),
    "10": (_variant("loss_forward 10", forward_tile_kernel, 640, 4, "compute", C=10, ROWS=64, BLOCK=16),),
    "21848": (
        _variant("loss_forward 21848", forward_long_kernel, LONG, 8, C=21848, BLOCK=LONG),
        _variant("loss_backward 21848", backward_tile_kernel, 4096, 8, C=21848, ROWS=1, BLOCK=4096),
    ),
    "21841": (
        _variant("loss_forward 21841", forward_long_kernel, LONG, 8, "ragged", C=21841, BLOCK=LONG),
        _variant("loss_backward 21841", backward_flat_kernel, FLAT, 4, "ragged", C=21841, BLOCK=FLAT),
        # the launcher turns an argument of 1 into a constant
        _variant("loss_backward 21841, one row", backward_flat_kernel, FLAT, 4, "ragged", C=21841, BLOCK=FLAT, B=1),
    ),
}


def _op(name: str, triton, reference, size: str, scored: bool) -> Op:
    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        case = pair_example(*SIZES[size][0 if small else 1], device, torch.float32 if small else torch.bfloat16)
        if scored:  # no row is ignored, so that the mean of the rows is the mean loss
            case["targets"] = Targets(*(t.clamp(min=0) for t in case["targets"]))
        return case

    aot = () if scored else _AOT.get(size, ())
    return Op(name, triton, reference, example, logit_bytes, aot, tolerance=5e-6, compiled=triton)


OPS = (
    *(_op(f"mixed_cross_entropy_{size}", _triton, _reference, size, False) for size in SIZES),
    *(_op(f"scored_cross_entropy_{size}", _scored, _scored_reference, size, True) for size in ("1000", "21841")),
    *WEIGHTED_OPS,
    *BINARY_OPS,
)
