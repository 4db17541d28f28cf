"""The registry rows of the cross-entropy, one per class count that takes another path in the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from fastreg.kernels.cross_entropy import mixed_binary_cross_entropy, mixed_cross_entropy, scored_cross_entropy
from fastreg.kernels.cross_entropy.backward import FLAT, backward_flat_kernel, backward_tile_kernel
from fastreg.kernels.cross_entropy.binary_kernels import binary_flat_kernel, binary_rows_kernel, binary_tile_kernel
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


# name of the row: (size, arguments besides logits and targets, whether targets are [B, C])
_BINARY: dict[str, tuple[str, dict[str, Any], bool]] = {
    "1000": ("1000", {}, False),
    "1000_terms": ("1000", {"reduction": "none", "class_weight": True}, False),
    "1000_threshold": ("1000", {"target_threshold": 0.2}, False),
    "1000_dense": ("1000", {}, True),
    "37": ("37", {"target_threshold": 0.2, "class_weight": True}, False),
    "21841": ("21841", {}, False),
}


def _binary(**arguments) -> tuple[Tensor, ...]:
    return _with_gradient(mixed_binary_cross_entropy, **arguments)


def _binary64(
    logits: Tensor,
    targets: Targets | Tensor,
    label_smoothing: float,
    target_threshold: float | None = None,
    sum_classes: bool = False,
    reduction: str = "mean",
    class_weight: Tensor | None = None,
) -> Tensor:
    """torch's binary cross-entropy in float64 on dense targets. Ignored rows ignore both labels."""
    C = logits.shape[1]
    kept = torch.ones(len(logits), 1, device=logits.device)
    if isinstance(targets, Tensor):
        t = targets
    else:
        kept = (targets.a >= 0).unsqueeze(1)
        a, b = (one_hot(label.clamp(min=0), C) for label in (targets.a, targets.b))
        lam = targets.lam.unsqueeze(1)
        t = (1 - label_smoothing) * (lam * a + (1 - lam) * b) + label_smoothing / C
    t = t if target_threshold is None else (t > target_threshold).double()
    terms = binary_cross_entropy_with_logits(
        logits.double(), t.double(), None if class_weight is None else class_weight.double(), reduction="none"
    )
    terms = terms * kept
    if reduction == "none":
        return terms
    return terms.sum() / (kept.sum() * (1 if sum_classes else C))


def _binary_reference(**arguments) -> tuple[Tensor, ...]:
    return _with_gradient(_binary64, **arguments)


def _binary_bytes(arguments: dict[str, Any]) -> int:
    """As ``_bytes``; dense targets are read once each way, terms are written in float32."""
    logits, targets = arguments["logits"], arguments["targets"]
    dense = 2 * targets.numel() * targets.element_size() if isinstance(targets, Tensor) else 0
    return _bytes(arguments) + dense + 4 * logits.numel() * (arguments.get("reduction") == "none")


_BINARY_SIGNATURE = _SIGNATURE | {
    **dict.fromkeys(("dense_ptr", "class_ptr"), "*fp32"),
    **dict.fromkeys(("off", "keep", "threshold"), "fp32"),
}


def _binary_variant(label: str, kernel, elements: int, warps: int, kind: str = "stream", **constants) -> Variant:
    switches = dict.fromkeys(("DENSE", "THRESHOLD", "CLASS_WEIGHT", "FULL"), False)
    switches |= dict.fromkeys(("PAIR", "WEIGH", "BACKWARD", "MEAN"), True) | constants
    signature = _BINARY_SIGNATURE | ({} if switches["BACKWARD"] else {"out": "*fp32"})
    fusion = not switches["THRESHOLD"]
    switches = {k: v for k, v in switches.items() if k in kernel.arg_names}
    return Variant(label, kernel, signature, switches, elements, warps, ("B", "grad_stride"), kind, fusion=fusion)


_TILE: dict[str, Any] = {"C": 1000, "ROWS": 1, "BLOCK": 1024}
_BINARY_AOT = {
    "1000": (
        _binary_variant("binary_rows 1000", binary_rows_kernel, 1000, 4, COUNT=1000, **_TILE),
        _binary_variant("binary_gradient 1000", binary_tile_kernel, 1000, 4, **_TILE),
    ),
    "1000_terms": (
        _binary_variant("binary_terms 1000, class weights", binary_tile_kernel, 1000, 4, BACKWARD=False, MEAN=False,
                        CLASS_WEIGHT=True, **_TILE),
        _binary_variant("binary_gradient 1000, class weights", binary_tile_kernel, 1000, 4, MEAN=False,
                        CLASS_WEIGHT=True, **_TILE),
    ),
    "1000_threshold": (
        _binary_variant("binary_rows 1000, threshold", binary_rows_kernel, 1000, 4, THRESHOLD=True, COUNT=1000,
                        **_TILE),
        _binary_variant("binary_gradient 1000, threshold", binary_tile_kernel, 1000, 4, THRESHOLD=True, **_TILE),
    ),
    "1000_dense": (
        _binary_variant("binary_rows 1000, dense", binary_rows_kernel, 1000, 4, DENSE=True, PAIR=False, COUNT=1000,
                        **_TILE),
        _binary_variant("binary_gradient 1000, dense", binary_tile_kernel, 1000, 4, DENSE=True, PAIR=False, **_TILE),
    ),
    "21841": (
        _binary_variant("binary_rows 21841", binary_rows_kernel, LONG, 8, "ragged", C=21841, ROWS=1, BLOCK=LONG,
                        COUNT=21841),
        _binary_variant("binary_gradient 21841", binary_flat_kernel, FLAT, 4, "ragged", C=21841, BLOCK=FLAT),
        _binary_variant("binary_gradient 21841, one row", binary_flat_kernel, FLAT, 4, "ragged", C=21841, BLOCK=FLAT,
                        B=1),
    ),
}  # fmt: skip


def _binary_op(name: str) -> Op:
    size, more, dense = _BINARY[name]

    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        B, C = _SIZES[size][0 if small else 1]
        g = torch.Generator().manual_seed(C)
        case = _example(B, C, device, torch.float32 if small else torch.bfloat16) | more
        if dense:
            case["targets"] = torch.rand(B, C, generator=g).to(device)
        if "class_weight" in more:
            case["class_weight"] = (torch.rand(C, generator=g) * 2).to(device)
        return case

    return Op(f"mixed_binary_cross_entropy_{name}", _binary, _binary_reference, example, _binary_bytes,
              _BINARY_AOT.get(name, ()), tolerance=5e-6)  # fmt: skip


OPS = (
    *(_op(f"mixed_cross_entropy_{size}", _triton, _reference, size, False) for size in _SIZES),
    *(_op(f"scored_cross_entropy_{size}", _scored, _scored_reference, size, True) for size in ("1000", "21841")),
    *map(_binary_op, _BINARY),
)
