"""The registry rows of the cross-entropy, one per class count that takes another path in the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastreg.kernels.cross_entropy import mixed_cross_entropy, scored_cross_entropy
from fastreg.kernels.cross_entropy.backward import FLAT, backward_flat_kernel, backward_tile_kernel
from fastreg.kernels.cross_entropy.forward import LONG, forward_long_kernel, forward_tile_kernel, reduce_kernel
from fastreg.kernels.registry import Op, Variant
from fastreg.kernels.types import Targets

# name: (batch, classes) small, large
_SIZES = {"1000": ((6, 1000), (1024, 1000)), "10": ((33, 10), (4096, 10)), "37": ((5, 37), (1024, 37)),
          "21848": ((3, 8200), (4096, 21848)), "21841": ((3, 8203), (4096, 21841))}  # fmt: skip


def _example(B: int, C: int, device, dtype: torch.dtype) -> dict[str, Any]:
    g = torch.Generator().manual_seed(C)
    a, b = torch.randint(0, C, (2, B), generator=g)
    b[0] = a[0]
    a[-1] = b[-1] = -100
    targets = Targets(a, b, torch.rand(B, generator=g))
    logits = (torch.randn(B, C, generator=g) * 4).to(device, dtype)
    return {"logits": logits, "targets": Targets(*(t.to(device) for t in targets)), "label_smoothing": 0.1}


def _with_gradient(loss, logits: Tensor, **arguments) -> tuple[Tensor, ...]:
    """The results of a loss, and the gradient of its mean."""
    logits = logits.detach().requires_grad_()
    results = loss(logits, **arguments)
    results = results if isinstance(results, tuple) else (results,)
    results[0].mean().backward()
    assert logits.grad is not None
    return *(r.detach() for r in results), logits.grad


def _triton(**arguments) -> tuple[Tensor, ...]:
    return _with_gradient(mixed_cross_entropy, **arguments)


def _scored(**arguments) -> tuple[Tensor, ...]:
    return _with_gradient(scored_cross_entropy, **arguments)


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
    return _with_gradient(_loss64, **arguments)


def _scored_reference(**arguments) -> tuple[Tensor, ...]:
    return _with_gradient(_scores64, **arguments)


def _bytes(arguments: dict[str, Any]) -> int:
    """Forward: logits once. Backward: logits once, their gradient once."""
    logits = arguments["logits"]
    return 3 * logits.numel() * logits.element_size()


_SIGNATURE = {
    **dict.fromkeys(("logits", "out"), "*bf16"),
    **dict.fromkeys(("a_ptr", "b_ptr"), "*i64"),
    **dict.fromkeys(("lam_ptr", "eps_ptr", "loss_ptr", "lse_ptr", "weight_ptr", "hit_ptr", "confidence_ptr"), "*fp32"),
    **dict.fromkeys(("grad", "total_ptr"), "*fp32"),
    "smoothing": "fp32",
    "B": "i32",
    "grad_stride": "i32",
}


def _variant(label: str, kernel, elements: int, warps: int, kind: str = "stream", **constants) -> Variant:
    constants = {"PAIR": True, "EPS": False, "SMOOTH": True, "SCORE": False, "WEIGH": True, "MEAN": True, **constants}
    signature = _SIGNATURE | ({"out": "*fp32"} if kernel is reduce_kernel else {})
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
        case = _example(*_SIZES[size][0 if small else 1], device, torch.float32 if small else torch.bfloat16)
        if scored:  # no row is ignored, so that the mean of the rows is the mean loss
            case["targets"] = Targets(*(t.clamp(min=0) for t in case["targets"]))
        return case

    return Op(name, triton, reference, example, _bytes, () if scored else _AOT.get(size, ()), tolerance=5e-6)


OPS = (
    *(_op(f"mixed_cross_entropy_{size}", _triton, _reference, size, False) for size in _SIZES),
    *(_op(f"scored_cross_entropy_{size}", _scored, _scored_reference, size, True) for size in ("1000", "21841")),
)
