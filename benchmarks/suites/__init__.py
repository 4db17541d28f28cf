"""Benchmark suites: one module of this folder each.

A module has ``BENCHMARK``, its row for the command line and the GPU check, and ``cases(options, settings)``, which
yields :class:`fastreg.benchmarks.cases.Case`. Adding a module adds the benchmark.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.errors import unknown


class Benchmark(NamedTuple):
    """A suite's row. Its values are literals, since the command line reads them without importing the module."""

    help: str  # one clause for the command line and the README
    order: int  # place in `all`; the most valuable suite first
    seconds: float = 60.0  # time limit in `gpu_check speed`
    setup: float = 0.5  # seconds before a case is measured there: networks, inputs
    needs: tuple[str, ...] = ()  # data sets; `gpu_check full` writes the sample of one that is missing


def benchmarks() -> dict[str, Benchmark]:
    """Every suite's row by name, in the order of ``all``. Imports no suite, and no torch."""
    found = {}
    for folder in __path__:
        for path in Path(folder).glob("*.py"):
            for statement in ast.parse(path.read_text()).body:
                if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "BENCHMARK":
                    call: Any = statement.value
                    found[path.stem] = Benchmark(**{word.arg: ast.literal_eval(word.value) for word in call.keywords})
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))


def select(what: str) -> list[str]:
    """The suites that ``what`` names: one, several joined by commas, or ``all``.

    Raises:
        InputError: a suite is unknown.
    """
    known = list(benchmarks())
    names = known if what == "all" else what.split(",")
    for name in names:
        if name not in known:
            raise unknown("benchmark", name, (*known, "all"))
    return names


def load(name: str) -> Any:
    """The module of a suite."""
    return importlib.import_module(f"{__name__}.{name}")
