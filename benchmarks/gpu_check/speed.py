"""The main rows of every suite on a GPU, in one process, each row written when it is measured."""

from __future__ import annotations

import json
import math
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from fastreg.benchmarks import RESULTS, compare, record, suites
from fastreg.benchmarks.gpu_check.check import CPU
from fastreg.benchmarks.gpu_check.compile_all import compile_all
from fastreg.benchmarks.gpu_check.dry import DryOptions
from fastreg.benchmarks.gpu_check.pool import Pool, Request
from fastreg.benchmarks.gpu_check.work import TRACEBACKS, records
from fastreg.benchmarks.record import FAILED, OURS, Absent, duration

WORK = "fastreg.benchmarks.gpu_check.work"
FIRST = ("throughput",)  # suites that only a GPU can measure run first, then the order of `all`
RECORDED = ("kernels", "loss", "corruptions")  # suites whose kernels are compiled in parallel before all measuring
COUNTING = 8.0  # seconds kept for the launches


def suite_order() -> list[str]:
    """All suites, in the order of the speed mode."""
    names = list(suites.benchmarks())
    return [*(name for name in FIRST if name in names), *(name for name in names if name not in FIRST)]


def run_speed(
    out: Path,
    device: str,
    deadline: float,
    *,
    scope: str = "main",
    data_dir: str | None = None,
    processes: int = 8,
) -> list[str]:
    """Measure all suites into ``out``.

    A suite that reaches its time limit keeps its rows. Unused time passes to later suites. A crash or a CUDA error
    loses one case: a new process continues with the next case.

    Args:
        out: folder; gets the record, row by row, and ``tracebacks.txt``.
        device: "cpu", "cuda" or "cuda:N".
        deadline: of ``time.monotonic``; without one (infinity) no suite has a limit of its own.
        scope: of :class:`fastreg.benchmarks.options.BenchmarkOptions`.
        data_dir: folder of the imagenet data set.
        processes: worker processes of the compile pass.

    Returns:
        Lines for the summary: suites that ended before their last case, and crashes before the first row of a suite.
        Lines about crashes begin with "FAILED".
    """
    notes: list[str] = []
    pool = Pool(1, out / TRACEBACKS)
    if device.startswith("cuda"):
        compile_cases(out, scope, deadline, processes)
    allowed = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "begun.json"
        state.write_text("[]")
        arguments = (str(out), device, data_dir, scope, str(state))
        try:
            for name in suite_order():
                allowed += suites.benchmarks()[name].seconds
                limit = min(allowed, deadline - COUNTING) if deadline < math.inf else math.inf
                if not _run_suite(pool, name, arguments, state, out, limit, notes):
                    notes.append(f"{name}: ended at its time limit, its rows are kept")
            if device.startswith("cuda"):
                request = Request(f"{WORK}:count_launches", suite_order(), (str(out),))
                pool.run([request], lambda *_: None, deadline)
        finally:
            pool.close()
    return notes


def compile_cases(out: Path, scope: str, deadline: float, processes: int, capability: int = 0) -> int:
    """Compile the kernels of the ``RECORDED`` suites in parallel; returns the number of specializations."""
    options = DryOptions(CPU, scope)
    items = [f"{name}: {case.name}" for name in RECORDED for case in suites.load(name).cases(options, {})]
    pool = Pool(processes, out / TRACEBACKS)
    try:
        return compile_all(pool, items, f"{WORK}:record_cases", (scope,), deadline, capability)
    finally:
        pool.close()


def _keep(answers: list[dict[str, Any]], _: Any, result: dict[str, Any]) -> None:
    answers.append(result)


def _run_suite(
    pool: Pool, name: str, arguments: tuple[Any, ...], state: Path, out: Path, limit: float, notes: list[str]
) -> bool:
    """Run one suite, with a new process after each crash; False if its time limit ended it."""
    while time.monotonic() < limit:
        answers: list[dict[str, Any]] = []
        request = Request(f"{WORK}:run_suites", [name], arguments)
        if not pool.run([request], partial(_keep, answers), limit):
            return False
        begun = json.loads(state.read_text())
        if not any("crash" in answer or answer.get("restart") for answer in answers):
            return True
        for answer in answers:
            if "crash" in answer:
                lost = begun[-1].partition(": ")[2] if begun and begun[-1].startswith(f"{name}: ") else ""
                if not _keep_crash(out, name, lost or name, answer["crash"]):
                    notes.append(f"FAILED {name}: {lost or name}: {answer['crash']}")
                if not lost:  # it ended before its first case, and would again
                    return True
    return False


def _keep_crash(out: Path, suite: str, case: str, reason: str) -> bool:
    """Put a crash into the record, as an absent row; False when the suite is not in any record yet."""
    for path in records(out):
        found = record.read(path)
        if suite in found["suites"]:
            absent = {"name": case, "variant": OURS, "reason": f"{FAILED} {reason}"}
            found["suites"][suite]["absent"].append(absent)
            record.merge(path, found)
            return True
    return False


def summary(out: Path) -> list[str]:
    """A short table of fastreg's rows, and the rows that failed."""
    lines = []
    for path in records(out):
        found = record.read(path)
        for suite, row in record.rows_of(found):
            if row.variant == OURS:
                rate = f"{row.images_per_second:12,.0f} images/s" if row.images else ""
                of_copy = f"{100 * row.of_copy:4.0f} % of copy" if row.limit_us else ""
                lines.append(f"{suite:11} {row.name:32} {duration(row.us):>9} {rate:24} {of_copy}".rstrip())
        lines += [f"FAILED {suite}: {one.name}: {one.reason}" for suite, one in _failures(found)]
    return lines


def _failures(found: dict[str, Any]) -> list[tuple[str, Absent]]:
    absent = [(suite, Absent(**one)) for suite, content in found["suites"].items() for one in content["absent"]]
    return [(suite, one) for suite, one in absent if one.variant == OURS and one.reason.startswith(FAILED)]


def compared(out: Path) -> list[compare.Comparison]:
    """Compare the records of a folder with the targets of their machine, and with the package's record of it.

    Not those of a CPU: a rehearsal times nothing.
    """
    found = []
    for path in records(out):
        content, earlier = record.read(path), RESULTS / path.name
        if content["machine"]["device"] != "cpu":
            found += compare.compare(content, record.read(earlier) if earlier.is_file() else None)
    return found


def passed(out: Path) -> bool:
    """Whether there are rows, none failed, and no comparison failed. On a CPU there is no comparison."""
    found = [record.read(path) for path in records(out)]
    has_rows = any(True for one in found for _ in record.rows_of(one))
    return has_rows and not any(_failures(one) for one in found) and not any(c.failed for c in compared(out))


def comparison_lines(out: Path) -> list[str]:
    """Failed comparisons, and the count of the others."""
    return compare.summary(compared(out))
