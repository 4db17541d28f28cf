"""The registry rows of the binary cross-entropy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from fastreg.kernels.cross_entropy.backward import FLAT
from fastreg.kernels.cross_entropy.binary import mixed_binary_cross_entropy
from fastreg.kernels.cross_entropy.binary_kernels import binary_flat_kernel, binary_rows_kernel, binary_tile_kernel
from fastreg.kernels.cross_entropy.examples import SIGNATURE, Row, example_of, logit_bytes, with_gradient
from fastreg.kernels.cross_entropy.forward import LONG
from fastreg.kernels.registry import Op, Variant
from fastreg.kernels.types import Targets

ROWS: dict[str, Row] = {
    "1000": ("1000", {}, False),
    "1000_terms": ("1000", {"reduction": "none", "class_weight": True}, False),
    "1000_threshold": ("1000", {"target_threshold": 0.2}, False),
    "1000_dense": ("1000", {}, True),
    "37": ("37", {"target_threshold": 0.2, "class_weight": True}, False),
    "21841": ("21841", {}, False),
}


def _triton(**arguments) -> tuple[Tensor, ...]:
    return with_gradient(mixed_binary_cross_entropy, **arguments)


def _loss64(
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


def _reference(**arguments) -> tuple[Tensor, ...]:
    return with_gradient(_loss64, **arguments)


def _bytes(arguments: dict[str, Any]) -> int:
    """As ``logit_bytes``; dense targets are read once each way, terms are written in float32."""
    logits, targets = arguments["logits"], arguments["targets"]
    dense = 2 * targets.numel() * targets.element_size() if isinstance(targets, Tensor) else 0
    return logit_bytes(arguments) + dense + 4 * logits.numel() * (arguments.get("reduction") == "none")


_SIGNATURE = SIGNATURE | {
    **dict.fromkeys(("dense_ptr", "class_ptr"), "*fp32"),
    **dict.fromkeys(("off", "keep", "threshold"), "fp32"),
}


def _variant(label: str, kernel, elements: int, warps: int, kind: str = "stream", **constants) -> Variant:
    switches = dict.fromkeys(("DENSE", "THRESHOLD", "CLASS_WEIGHT", "FULL"), False)
    switches |= dict.fromkeys(("PAIR", "WEIGH", "BACKWARD", "MEAN"), True) | constants
    signature = _SIGNATURE | ({} if switches["BACKWARD"] else {"out": "*fp32"})
    fusion = not switches["THRESHOLD"]
    switches = {k: v for k, v in switches.items() if k in kernel.arg_names}
    return Variant(label, kernel, signature, switches, elements, warps, ("B", "grad_stride"), kind, fusion=fusion)


_TILE: dict[str, Any] = {"C": 1000, "ROWS": 1, "BLOCK": 1024}
_AOT = {
    "1000": (
        _variant("binary_rows 1000", binary_rows_kernel, 1000, 4, COUNT=1000, **_TILE),
        _variant("binary_gradient 1000", binary_tile_kernel, 1000, 4, **_TILE),
    ),
    "1000_terms": (
        _variant("binary_terms 1000, class weights", binary_tile_kernel, 1000, 4, BACKWARD=False, MEAN=False,
                        CLASS_WEIGHT=True, **_TILE),
        _variant("binary_gradient 1000, class weights", binary_tile_kernel, 1000, 4, MEAN=False,
                        CLASS_WEIGHT=True, **_TILE),
    ),
    "1000_threshold": (
        _variant("binary_rows 1000, threshold", binary_rows_kernel, 1000, 4, THRESHOLD=True, COUNT=1000,
                        **_TILE),
        _variant("binary_gradient 1000, threshold", binary_tile_kernel, 1000, 4, THRESHOLD=True, **_TILE),
    ),
    "1000_dense": (
        _variant("binary_rows 1000, dense", binary_rows_kernel, 1000, 4, DENSE=True, PAIR=False, COUNT=1000,
                        **_TILE),
        _variant("binary_gradient 1000, dense", binary_tile_kernel, 1000, 4, DENSE=True, PAIR=False, **_TILE),
    ),
    "21841": (
        _variant("binary_rows 21841", binary_rows_kernel, LONG, 8, "ragged", C=21841, ROWS=1, BLOCK=LONG,
                        COUNT=21841),
        _variant("binary_gradient 21841", binary_flat_kernel, FLAT, 4, "ragged", C=21841, BLOCK=FLAT),
        _variant("binary_gradient 21841, one row", binary_flat_kernel, FLAT, 4, "ragged", C=21841, BLOCK=FLAT,
                        B=1),
    ),
}  # fmt: skip


def _op(name: str) -> Op:
    return Op(f"mixed_binary_cross_entropy_{name}", _triton, _reference, example_of(ROWS[name]), _bytes,
              _AOT.get(name, ()), tolerance=5e-6, compiled=_triton, compiled_tolerance=1e-6)  # fmt: skip


OPS = tuple(map(_op, ROWS))
