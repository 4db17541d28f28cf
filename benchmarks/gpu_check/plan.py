"""The time plan of a mode, without a GPU: counted compilations, reference costs, and a stub clock for measurements."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from fastreg.benchmarks import suites
from fastreg.benchmarks.gpu_check.check import CPU, Check
from fastreg.benchmarks.gpu_check.checks import all_checks, cost, records_kernels, split
from fastreg.benchmarks.gpu_check.dry import SMALL, dry_cases
from fastreg.benchmarks.gpu_check.specializations import recording
from fastreg.benchmarks.gpu_check.speed import COUNTING, RECORDED, suite_order

# assumptions, in seconds
START = 15.0  # of a worker: imports, CUDA context
COMPILE = 0.9  # of one specialization, with the C launcher of Triton 3.6
ON_GPU = 0.1  # of a check beside its reference: two runs, copies, comparison
NETWORK = 60.0  # of torch.compile on ResNet-50
FUNCTION = 3.0  # of torch.compile on a function
COMPILED_STEP = 40.0  # of torch.compile on ResNet-18
RECORD_CASES = 12.0  # of the launches of the speed mode's kernels, at their real size
PACKING = 5.0  # of the archive
CAPABILITY = 90  # H100 and H200


class Line(NamedTuple):
    """One line of the plan."""

    name: str
    seconds: float
    note: str = ""


def plan(mode: str, quick: bool = False, processes: int = 8) -> list[Line]:
    """The plan of a mode, line by line."""
    if mode == "correctness":
        return correctness_plan(quick, processes)
    if mode == "speed":
        return speed_plan("main", processes)
    return [*correctness_plan(quick, processes), *speed_plan("full", processes)]


def correctness_plan(quick: bool = False, processes: int = 8) -> list[Line]:
    """Start, compile pass, and the busiest process's checks."""
    checks = list(all_checks(quick))
    recorded = [check for check in checks if records_kernels(check.name)]
    with recording(CAPABILITY) as found:
        for check in recorded:
            with contextlib.suppress(Exception):
                check.make(CPU)
    by_name = {check.name: check for check in checks}
    shares = split(checks, processes, extra=ON_GPU)
    busiest = max(sum(_seconds([by_name[name] for name in share])) for share in shares)
    return [
        Line("start", START),
        Line("record launches", 10.0 / processes + 1, f"{len(recorded)} checks"),
        Line("compile", COMPILE * len(found) / processes, f"{len(found)} specializations in {processes} processes"),
        Line("checks", busiest, f"{len(checks)} checks, the busiest of {processes} processes"),
        Line("pack compiled kernels", PACKING),
    ]


def _seconds(checks: list[Check]) -> Iterator[float]:
    group = ""
    for check in checks:
        if not check.group or check.group != group:
            yield cost(check)
        group = check.group
        yield COMPILED_STEP if check.name.endswith(", compiled") else ON_GPU


def speed_plan(scope: str = "main", processes: int = 8) -> list[Line]:
    """The compile pass, then every case of every suite on small inputs, its measurements replaced by a stub clock."""
    lines = []
    compiled: set[str] = set()
    for suite in suite_order():
        rows, keys = _suite_plan(suite, scope, compiled if suite not in RECORDED else None)
        lines += rows
        if suite in RECORDED:
            compiled |= keys
    return [
        Line("start", START),
        Line("record launches", RECORD_CASES, ", ".join(RECORDED)),
        Line(
            "compile", COMPILE * len(compiled) / processes, f"{len(compiled)} specializations in {processes} processes"
        ),
        *lines,
        Line("count launches", COUNTING),
    ]


def _suite_plan(suite: str, scope: str, compiled: set[str] | None) -> tuple[list[Line], set[str]]:
    """Lines of a suite's cases, and its specializations. ``compiled`` None: the compile pass covers all of them."""
    lines: list[Line] = []
    keys: set[str] = set()
    for case, run in dry_cases(suite, scope, CAPABILITY, **SMALL):
        new = set() if compiled is None else run.specializations.keys() - compiled - keys
        keys |= run.specializations.keys()
        seconds = run.seconds + suites.benchmarks()[suite].setup
        seconds += COMPILE * len(new) + NETWORK * run.networks + FUNCTION * run.functions
        lines.append(Line(f"{suite}: {case.name}", seconds, f"{len(new)} compilations" if new else ""))
    return lines, keys


def plan_text(mode: str, quick: bool = False, processes: int = 8) -> str:
    """The plan as a table, with the sum at the end."""
    lines = plan(mode, quick, processes)
    text = [f"{line.seconds:7.1f} s  {line.name}{f' ({line.note})' if line.note else ''}" for line in lines]
    return "\n".join([*text, f"{sum(line.seconds for line in lines):7.1f} s  {mode} in all"])
