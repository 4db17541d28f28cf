"""All checks in the order in which they run: checks that need a GPU come first."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from fastreg.benchmarks.gpu_check.check import Check

COSTS = Path(__file__).with_name("reference_seconds.json")
UNKNOWN_COST = 1.0  # seconds of a reference of a kind that has not been measured


def all_checks(quick: bool = False) -> Iterator[Check]:
    """Training steps, captured graphs, loader batches, whole evaluations, then kernels by variant."""
    from fastreg.benchmarks.gpu_check.cuda_graphs import graph_checks
    from fastreg.benchmarks.gpu_check.evaluation import evaluation_checks
    from fastreg.benchmarks.gpu_check.kernels import kernel_checks
    from fastreg.benchmarks.gpu_check.loaders import loader_checks
    from fastreg.benchmarks.gpu_check.train_steps import train_step_checks

    yield from train_step_checks(quick)
    yield from graph_checks()
    yield from loader_checks()
    yield from evaluation_checks()
    yield from kernel_checks(quick)


def records_kernels(name: str) -> bool:
    """Whether the compile pass records a check's launches: checks of kernels alone, which cost little host time."""
    return not name.startswith(("step ", "loader ", "evaluation ", "graph "))


def cost(check: Check) -> float:
    """Seconds of the check's reference on one core; checks of a group share one reference.

    A reference that has not been measured, such as that of a new registry row, costs the median of its kind.
    """
    name = check.group or check.name
    kind = [seconds for known, seconds in _costs().items() if known.split()[0] == name.split()[0]]
    return _costs().get(name, statistics.median(kind) if kind else UNKNOWN_COST)


@cache
def _costs() -> dict[str, float]:
    return json.loads(COSTS.read_text()) if COSTS.is_file() else {}


def split(checks: list[Check], processes: int, extra: float = 0.0) -> list[list[str]]:
    """Distribute checks over processes: each group goes whole to the process that is free first, in order.

    Args:
        checks: in order of priority.
        processes: number of lists.
        extra: seconds of a check beside its reference.

    Returns:
        Names of checks by process; each list is in order of priority.
    """
    groups: dict[str, list[Check]] = {}
    for check in checks:
        groups.setdefault(check.group or check.name, []).append(check)
    lists: list[list[str]] = [[] for _ in range(processes)]
    busy = [0.0] * processes
    for members in groups.values():
        first = busy.index(min(busy))
        lists[first] += [check.name for check in members]
        busy[first] += cost(members[0]) + extra * len(members)
    return lists
