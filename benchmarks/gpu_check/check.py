"""One check: a computation on the GPU, twice, against its float32 reference on the CPU.

Two runs on the GPU must give equal bits, or the kernel has a race. Tolerances are data: uint8 results are equal or one
level apart in a small share of values, floats as close as their dtype allows.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

CPU = torch.device("cpu")
NOT_CHECKED = "not checked"  # start of the detail of a check whose reference lacks a package
Tensors = tuple[Tensor, ...]


class Close(NamedTuple):
    """Largest difference, and the share of values that may differ at all."""

    largest: float
    share: float = 1.0
    relative: float = 0.0  # of the reference's magnitude, added to ``largest``


EXACT = Close(0.0, 0.0)
DTYPES = {
    torch.float32: Close(3e-6, relative=1e-6),
    torch.float16: Close(3e-6, relative=2**-10),
    torch.bfloat16: Close(3e-6, relative=2**-7),
}


class Check(NamedTuple):
    """One check.

    ``make(device)`` computes the tensors to compare, from inputs that are the same on every device. ``reference()``
    gives the tensors to compare with; None means ``make(CPU)``. Checks of one ``group`` share the result of
    ``reference``, which is then in float32: ``dtypes`` are those of the computed tensors. ``repeats`` is False for
    results whose bits may differ between two runs (atomic sums in a library).
    """

    name: str
    make: Callable[[torch.device], Tensors]
    close: Close
    reference: Callable[[], Tensors] | None = None
    group: str = ""
    dtypes: tuple[torch.dtype, ...] = ()
    repeats: bool = True


def run_check(check: Check, device: torch.device, shared: dict[str, Tensors] | None = None) -> dict[str, Any]:
    """Run one check.

    Args:
        check: the check.
        device: where to compute.
        shared: references by group; a reference is computed once while it stays there.

    Returns:
        ``{"name", "ok", "detail", "seconds", "traceback"}``; an exception is a failed check. ``seconds``
        includes the reference.
    """
    start = time.perf_counter()
    error: BaseException | None = None
    try:
        reference = _reference(check, {} if shared is None else shared)
    except ModuleNotFoundError as missing:  # a reference that calls Pillow, on a machine without it
        return _result(check, start, f"{NOT_CHECKED}: {missing}", ok=True)
    except Exception as raised:
        return _result(check, start, f"the reference fails: {_first_line(raised)}", error=raised)
    try:
        first, second = check.make(device), check.make(device)
        detail = compare(first, second, reference, check)
    except ModuleNotFoundError as missing:
        return _result(check, start, f"{NOT_CHECKED}: {missing}", ok=True)
    except Exception as raised:  # a kernel that does not run is a failed check; other checks continue
        detail, error = _first_line(raised), raised
    return _result(check, start, detail, error=error)


def _reference(check: Check, shared: dict[str, Tensors]) -> Tensors:
    if not check.group:
        return check.reference() if check.reference else check.make(CPU)
    if check.group not in shared:
        shared.clear()  # checks of a group follow each other, so one reference is kept
        shared[check.group] = check.reference() if check.reference else check.make(CPU)
    return shared[check.group]


def _result(
    check: Check, start: float, detail: str, *, ok: bool | None = None, error: BaseException | None = None
) -> dict[str, Any]:
    text = "".join(traceback.format_exception(error)) if error is not None else ""
    seconds = round(time.perf_counter() - start, 3)
    return {
        "name": check.name,
        "ok": not detail if ok is None else ok,
        "detail": detail,
        "seconds": seconds,
        "traceback": text,
    }


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def compare(first: Tensors, second: Tensors, reference: Tensors, check: Check) -> str:
    """The first fault of two runs beside their reference; empty when there is none."""
    dtypes = check.dtypes or tuple(t.dtype for t in reference)
    close = check.close
    for a, again, wanted, dtype in zip(first, second, reference, dtypes, strict=True):
        if check.repeats and not torch.equal(a.nan_to_num(), again.nan_to_num()):
            return f"two runs differ in {int((a != again).sum())} values: a race"
        if a.shape != wanted.shape or a.dtype != dtype:
            return f"{a.dtype} {tuple(a.shape)}, the reference has {dtype} {tuple(wanted.shape)}"
        got, right = a.cpu().double(), wanted.double()
        difference = (got - right).abs()
        difference = torch.where(got.isnan() & right.isnan(), 0.0, difference)
        beyond = ~(difference <= close.largest + close.relative * right.abs().nan_to_num())
        share = float((difference > 0).double().mean())
        if beyond.any() or share > close.share:
            return f"largest difference {float(difference.max()):.3g}, {share:.3%} of values differ (allowed {close})"
    return ""
