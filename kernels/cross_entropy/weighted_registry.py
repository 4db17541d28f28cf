"""The registry rows of the cross-entropy with class weights or float targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy import mixed_cross_entropy
from fastreg.kernels.cross_entropy.backward import FLAT
from fastreg.kernels.cross_entropy.examples import SIGNATURE, Row, example_of, logit_bytes, with_gradient
from fastreg.kernels.cross_entropy.forward import LONG
from fastreg.kernels.cross_entropy.weighted_kernels import (
    weighted_flat_kernel,
    weighted_rows_kernel,
    weighted_tile_kernel,
)
from fastreg.kernels.registry import Op, Variant
from fastreg.kernels.types import Targets

ROWS: dict[str, Row] = {
    "1000": ("1000", {"class_weight": True}, False),
    "1000_dense": ("1000", {}, True),
    "37": ("37", {"class_weight": True, "label_smoothing": 0.0}, False),
    "21848_dense": ("21848", {"class_weight": True}, True),
    "21841": ("21841", {"class_weight": True}, False),
}


def _triton(**arguments) -> tuple[Tensor, ...]:
    return with_gradient(mixed_cross_entropy, **arguments)


def _loss64(
    logits: Tensor, targets: Targets | Tensor, label_smoothing: float, class_weight: Tensor | None = None
) -> Tensor:
    """The weighted log-softmax in float64, on dense weights of the classes."""
    B, C = logits.shape
    v = logits.new_ones(C, dtype=torch.float64) if class_weight is None else class_weight.double()
    terms = -logits.double().log_softmax(1) * v
    if isinstance(targets, Tensor):
        return (terms * (targets * (1 - label_smoothing) + label_smoothing / C)).sum() / B
    rows = total = terms.new_zeros(B)
    for label, share in ((targets.a, targets.lam), (targets.b, 1 - targets.lam)):
        kept = share * (label >= 0)
        at = label.clamp(min=0)
        own = terms.gather(1, at.unsqueeze(1)).squeeze(1)
        rows = rows + kept * ((1 - label_smoothing) * own + label_smoothing * terms.mean(1))
        total = total + kept * v[at]
    return rows.sum() / total.sum()


def _reference(**arguments) -> tuple[Tensor, ...]:
    return with_gradient(_loss64, **arguments)


def _bytes(arguments: dict[str, Any]) -> int:
    """As ``logit_bytes``; float targets are read once each way."""
    targets = arguments["targets"]
    dense = 2 * targets.numel() * targets.element_size() if isinstance(targets, Tensor) else 0
    return logit_bytes(arguments) + dense


_SIGNATURE = SIGNATURE | dict.fromkeys(("dense_ptr", "class_ptr", "rows_ptr"), "*fp32")


def _variant(label: str, kernel, elements: int, warps: int, kind: str = "stream", **constants) -> Variant:
    switches: dict[str, Any] = {"PAIR": True, "EPS": False, "DENSE": False, "SMOOTH": True, "CLASS_WEIGHT": True,
                                "WEIGH": True, "MEAN": True, **constants}  # fmt: skip
    switches = {k: v for k, v in switches.items() if k in kernel.arg_names}
    return Variant(label, kernel, _SIGNATURE, switches, elements, warps, ("B", "grad_stride"), kind)


_TILE: dict[str, Any] = {"C": 1000, "ROWS": 1, "BLOCK": 1024}
_DENSE: dict[str, Any] = {"DENSE": True, "PAIR": False}
_AOT = {
    "1000": (
        _variant("weighted_rows 1000", weighted_rows_kernel, 1000, 4, **_TILE),
        _variant("weighted_gradient 1000", weighted_tile_kernel, 1000, 4, **_TILE),
    ),
    "1000_dense": (
        _variant("weighted_rows 1000, dense", weighted_rows_kernel, 1000, 4, CLASS_WEIGHT=False, **_DENSE, **_TILE),
        _variant("weighted_gradient 1000, dense", weighted_tile_kernel, 1000, 4, CLASS_WEIGHT=False, **_DENSE, **_TILE),
    ),
    "21848_dense": (
        _variant("weighted_rows 21848, dense", weighted_rows_kernel, LONG, 8, C=21848, ROWS=1, BLOCK=LONG, **_DENSE),
        _variant("weighted_gradient 21848, dense", weighted_tile_kernel, 4096, 8, C=21848, ROWS=1, BLOCK=4096,
                 **_DENSE),
    ),
    "21841": (
        _variant("weighted_rows 21841", weighted_rows_kernel, LONG, 8, "ragged", C=21841, ROWS=1, BLOCK=LONG),
        _variant("weighted_gradient 21841", weighted_flat_kernel, FLAT, 4, "ragged", C=21841, BLOCK=FLAT),
        _variant("weighted_gradient 21841, one row", weighted_flat_kernel, FLAT, 4, "ragged", C=21841, BLOCK=FLAT, B=1),
    ),
}  # fmt: skip


def _op(name: str) -> Op:
    return Op(f"weighted_cross_entropy_{name}", _triton, _reference, example_of(ROWS[name], distribution=True), _bytes,
              _AOT.get(name, ()), tolerance=1e-5, compiled=_triton, compiled_tolerance=1.5e-6)  # fmt: skip


OPS = tuple(map(_op, ROWS))
