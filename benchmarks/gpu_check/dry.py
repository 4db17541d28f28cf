"""A suite's cases without a GPU: host code runs on CPU tensors, nothing is launched, compiled or measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from fastreg.benchmarks import suites, timing
from fastreg.benchmarks.cases import Case
from fastreg.benchmarks.gpu_check.check import CPU
from fastreg.benchmarks.gpu_check.specializations import Specialization, recording
from fastreg.benchmarks.options import BenchmarkOptions

SMALL: dict[str, Any] = {"batch_size": 2, "size": 64, "model": "resnet18"}


@dataclass(frozen=True)
class DryOptions(BenchmarkOptions):
    """The cases of a GPU on the CPU."""

    @property
    def gpu(self) -> bool:
        return True


class DryRun(NamedTuple):
    """Needs of a case: its specializations by key, seconds of measuring, and calls of torch.compile."""

    specializations: dict[str, Specialization]
    seconds: float
    networks: int
    functions: int


def dry_cases(
    suite: str, scope: str, capability: int, wanted: str = "", **inputs: Any
) -> Iterator[tuple[Case, DryRun]]:
    """Run the cases of a suite dry.

    Args:
        suite: its name.
        scope: of :class:`fastreg.benchmarks.options.BenchmarkOptions`.
        capability: of the GPU to compile for, 90 for an H100.
        wanted: the only case to run; empty: all of them.
        inputs: further options, such as ``SMALL``; without them, inputs have the size of a real run.
    """
    with _without_device(capability):
        cases = suites.load(suite).cases(DryOptions(CPU, scope, **inputs), {})
    while True:
        with _without_device(capability) as (found, clock, compiled):
            case = next(cases, None)
            if case is not None and wanted in ("", case.name):
                for _ in case.rows():
                    pass
        if case is None:
            return
        if wanted in ("", case.name):
            networks = sum(isinstance(one, torch.nn.Module) for one in compiled)
            yield case, DryRun(found, clock.seconds, networks, len(compiled) - networks)


@contextlib.contextmanager
def _without_device(
    capability: int,
) -> Iterator[tuple[dict[str, Specialization], timing.StubClock, list[Any]]]:
    compiled: list[Any] = []
    whole, before, clock = torch.compile, timing.stub, timing.StubClock()

    def keep(function: Any, **_: Any) -> Any:
        compiled.append(function)
        return function

    timing.stub, torch.compile = clock, keep  # type: ignore[assignment]
    try:
        with recording(capability) as found:
            yield found, clock, compiled
    finally:
        timing.stub, torch.compile = before, whole
