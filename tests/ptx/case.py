"""A call on the Triton route, the same call by a reference, and the tolerance between the two."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.ptx.emulator import APPROXIMATE, CONTRACTED, EXACT, Emulator, Mode, Report
from tests.ptx.launcher import Poisoned, emulating


@dataclass
class Case:
    """``call`` and ``reference`` give a tensor or a tuple of tensors.

    ``differs`` replaces the tolerances: it returns the difference of (result, expected, mode) as text, or "". ``only``
    chooses the CTAs that run, for tensors that are mostly untouched memory.
    """

    name: str
    call: Callable[[], Any]
    reference: Callable[[], Any]
    tolerance: float = 0.0
    rare: float = 0.0  # share of values that may exceed it, by at most rare_tolerance
    rare_tolerance: float = 0.0
    differs: Callable[[Any, Any, Mode], str] | None = None
    only: Callable[[str, tuple[int, ...]], list[int]] | None = None


def check(emulator: Emulator, case: Case) -> None:
    """Run a case in every mode that changes something, and fail with a list of all differences."""
    expected = case.reference()
    emulator.report, emulator.only = Report(), case.only
    result = _call(emulator, case, EXACT, 0xA5, twice=True)
    wrong = [_wrong(case, result, expected, EXACT)]
    if not case.only:
        again = _call(emulator, case, EXACT, 0x5A, twice=False)
        pairs = zip(_tensors(result), _tensors(again), strict=True)
        wrong.append(
            "" if all(_same_bits(a, b) for a, b in pairs) else "the result depends on memory that nobody wrote"
        )
        modes = APPROXIMATE if emulator.report.approximate else ()
        for mode in (*modes, CONTRACTED) if emulator.report.contractible else modes:
            result = _call(emulator, case, mode, 0xA5, twice=False)
            wrong.append(_wrong(case, result, expected, mode))
    failures = [*filter(None, wrong), *emulator.report.errors()]
    assert not failures, f"{case.name}:\n" + "\n".join(failures)


def _call(emulator: Emulator, case: Case, mode: Mode, poison: int, twice: bool) -> Any:
    emulator.mode, emulator.poison, emulator.twice = mode, poison * 0x01010101, twice
    with emulating(emulator), nullcontext() if case.only else Poisoned(poison):
        return case.call()


def _wrong(case: Case, result: Any, expected: Any, mode: Mode) -> str:
    differs = case.differs(result, expected, mode) if case.differs else _beyond(case, result, expected)
    return differs and f"{mode.name}: {differs}"


def _beyond(case: Case, result: Any, expected: Any) -> str:
    for got, wanted in zip(_tensors(result), _tensors(expected), strict=True):
        if got.shape != wanted.shape or got.is_floating_point() != wanted.is_floating_point():
            return f"{list(got.shape)} {got.dtype}, expected {list(wanted.shape)} {wanted.dtype}"
        if not torch.equal(got.isnan(), wanted.isnan()):
            return f"NaN in {int(got.isnan().sum())} places, expected {int(wanted.isnan().sum())}"
        off = (got.double() - wanted.double()).abs().nan_to_num(0)
        share = (off > case.tolerance).double().mean().item() if off.numel() else 0.0
        if share > case.rare or (share and off.max().item() > case.rare_tolerance):
            return f"{share:.3%} of values beyond {case.tolerance:g}, by up to {off.max().item():.3g}"
    return ""


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(*(x.contiguous().view(-1).view(torch.uint8) for x in (a, b)))


def _tensors(x: Any) -> tuple[Tensor, ...]:
    return () if x is None else tuple(x) if isinstance(x, tuple | list) else (x,)


def generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(sum((i + 1) * 7919 * k for i, k in enumerate(key)) % 2**31)


def levels(*shape: int) -> Tensor:
    """uint8 noise."""
    return torch.randint(0, 256, shape, generator=generator(*shape), dtype=torch.uint8)


def rounded(result: Tensor, expected: Tensor, mode: Mode) -> str:
    """The result is the float32 reference, 2e-6 away at most, rounded to the result's dtype."""
    if not torch.equal(result.isnan(), expected.isnan()):
        return f"NaN in {int(result.isnan().sum())} places, expected {int(expected.isnan().sum())}"
    low, high = ((expected + sign * 2e-6).to(result.dtype).float() for sign in (-1, 1))
    off = ((result.float() < low) | (result.float() > high)) & ~expected.isnan()
    if not off.any():
        return ""
    return f"{off.double().mean():.2%} of values are off by up to {(result.float() - expected)[off].abs().max():.3g}"
