"""Functions that run in the worker processes; each yields ``(item, result)`` as :mod:`pool` describes."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import time
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from fastreg.benchmarks.cases import is_cuda_error
from fastreg.benchmarks.gpu_check.check import CPU, Check, Tensors, run_check
from fastreg.benchmarks.gpu_check.specializations import Specialization, recording

TRACEBACKS = "tracebacks.txt"  # in the output folder
CHECKS = "fastreg.benchmarks.gpu_check.checks:all_checks"
_recorded: dict[str, Specialization] = {}  # of this process


@cache
def checks_by_name(source: str, quick: bool) -> dict[str, Check]:
    """Checks of ``source`` ("module:function") by name, in order."""
    module, _, name = source.partition(":")
    return {check.name: check for check in getattr(importlib.import_module(module), name)(quick)}


def record_launches(names: list[str], source: str, quick: bool, capability: int) -> Iterator[tuple[str, Any]]:
    """Record the specializations that checks need; the result of a check is the list of new keys."""
    found = checks_by_name(source, quick)
    for name in names:
        # an error is reported when the check itself runs
        with recording(capability) as specializations, contextlib.suppress(Exception):
            found[name].make(CPU)
        new = [key for key in specializations if key not in _recorded]
        _recorded.update(specializations)
        yield name, {"keys": new}


def record_cases(items: list[str], scope: str, capability: int) -> Iterator[tuple[str, Any]]:
    """Record the specializations that cases ("suite: case") need on their real inputs."""
    from fastreg.benchmarks.gpu_check.dry import dry_cases

    for item in items:
        suite, _, name = item.partition(": ")
        new: list[str] = []
        with contextlib.suppress(Exception):  # the case itself reports the error
            for _, run in dry_cases(suite, scope, capability, name):
                new += [key for key in run.specializations if key not in _recorded]
                _recorded.update(run.specializations)
        yield item, {"keys": new}


def compile_recorded(keys: list[str]) -> Iterator[tuple[str, Any]]:
    """Compile specializations that this process recorded; the result is empty, or the error."""
    for key in keys:
        yield key, None
        try:
            _recorded[key].compile()
            yield key, {"error": ""}
        except Exception as error:  # its check fails with the whole traceback
            yield key, {"error": f"{type(error).__name__}: {error}"}


def run_checks(names: list[str], source: str, quick: bool, device_name: str) -> Iterator[tuple[str, Any]]:
    """Run checks; a CUDA error requests a new process, in which the next check runs."""
    from fastreg.distributed import resolve_device

    device = resolve_device(device_name)
    shared: dict[str, Tensors] = {}
    found = checks_by_name(source, quick)
    for name in names:
        yield name, None
        result = run_check(found[name], device, shared)
        yield name, {**result, "restart": is_cuda_error(result["detail"] + result["traceback"])}
        gc.collect()


class _UnusableProcess(Exception):
    """A CUDA error has happened: no further case can run in this process."""


def run_suites(
    names: list[str], out: str, device_name: str, data_dir: str | None, scope: str, state: str
) -> Iterator[tuple[str, Any]]:
    """Measure suites into the record in ``out``, without the cases that the file ``state`` lists.

    A case is added to ``state`` before it starts. Each row is written as soon as it is measured. A CUDA error requests
    a new process, which continues with the next case.
    """
    from fastreg.benchmarks import record, runner
    from fastreg.benchmarks.cases import failed

    options = _options(device_name, data_dir, scope)
    whole = runner.new_record(options)
    path = Path(out) / f"{whole['machine']['slug']}.json"
    if path.is_file():
        whole["suites"] = record.read(path)["suites"]
    for name in names:
        yield name, None
        cuda_errors: list[str] = []

        def on_error(case: Any, error: Exception, cuda_errors: list[str] = cuda_errors) -> record.Absent:
            text = "".join(traceback.format_exception(error))
            with open(Path(out) / TRACEBACKS, "a") as file:
                file.write(f"{case.name}\n{text}\n")
            if is_cuda_error(text):
                cuda_errors.append(case.name)
            return failed(case.name, record.OURS, error)

        def begin(case: Any, name: str = name, cuda_errors: list[str] = cuda_errors) -> bool:
            if cuda_errors:
                raise _UnusableProcess
            done = json.loads(Path(state).read_text())
            if f"{name}: {case.name}" in done:
                return False
            Path(state).write_text(json.dumps([*done, f"{name}: {case.name}"]))
            return True

        with contextlib.suppress(_UnusableProcess):
            runner.run_suite(name, options, whole, path, wanted=begin, on_error=on_error, count=False)
        pending[name] = [*pending.get(name, []), *options.uncounted]
        options.uncounted.clear()
        yield name, {"restart": bool(cuda_errors)}


pending: dict[str, list[Any]] = {}  # captured rows of this process by suite, whose launches are not counted yet


def records(out: Path) -> list[Path]:
    """The benchmark records in a folder."""
    return [path for path in sorted(out.glob("*.json")) if path.name != "checks.json"]


def count_launches(names: list[str], out: str) -> Iterator[tuple[str, Any]]:
    """Count the launches of the captured rows of all suites: the profiler comes last."""
    from fastreg.benchmarks import runner

    (path,) = records(Path(out))
    for name in names:
        yield name, None
        runner.add_launches(path, name, pending.get(name, []))
        yield name, {}


@cache
def _options(device_name: str, data_dir: str | None, scope: str) -> Any:
    from fastreg.benchmarks.options import BenchmarkOptions
    from fastreg.distributed import resolve_device

    return BenchmarkOptions(resolve_device(device_name), scope, data_dir)


def measure_references(names: list[str], source: str, quick: bool) -> Iterator[tuple[str, Any]]:
    """CPU seconds of each check's reference."""
    found = checks_by_name(source, quick)
    for name in names:
        check = found[name]
        start = time.process_time()
        with contextlib.suppress(ModuleNotFoundError):
            _ = check.reference() if check.reference else check.make(CPU)
            yield name, {"seconds": time.process_time() - start}
