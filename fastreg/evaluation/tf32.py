"""TF32, a float32 with a 10-bit mantissa that GPUs multiply in: switched for one evaluation, whatever was on before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Matrix products and convolutions in TF32 or in float32; every switch is put back at the end.

    PyTorch allows convolutions TF32 by default and has an old and a new switch for each kind; both are set, so that
    whichever is read says the same, and a caller may have used either.
    """
    cudnn = torch.backends.cudnn
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
    new = [kind.fp32_precision for kind in kinds]
    matmul, conv = _read(torch.get_float32_matmul_precision), _read(lambda: cudnn.allow_tf32)
    try:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        cudnn.allow_tf32 = allowed
        for kind in kinds:
            kind.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if conv is not None:
            cudnn.allow_tf32 = conv
        for kind, value in zip(kinds, new):
            kind.fp32_precision = value


def _read(switch: Callable[[], Any]) -> Any:
    """An old switch; None where the new ones were set to what it cannot say, and reading it raises."""
    try:
        return switch()
    except RuntimeError:
        return None
