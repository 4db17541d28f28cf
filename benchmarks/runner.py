"""Run suites and write one JSON per machine, row by row."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fastreg.benchmarks import machine, record, suites
from fastreg.benchmarks.cases import Case, with_launches
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.distributed import resolve_device
from fastreg.errors import InputError
from fastreg.log import log


def run(
    what: str,
    *,
    out: str | Path | None = None,
    quick: bool = False,
    device: str | None = None,
    data_dir: str | None = None,
    batch_size: int | None = None,
    size: int | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """Measure one suite, several joined by commas, or ``all``.

    Args:
        what: names of suites.
        out: folder; ``<machine>.json`` in it gets each row when it is measured, and keeps its other suites.
        quick: fewer cases, about a quarter of the time.
        device: "auto" (also None), "cpu", "cuda" or "cuda:N".
        data_dir: folder of the imagenet data set; None looks in the usual places.
        batch_size: images in one call; None leaves it to the suite, by device.
        size: pixels of a side, likewise.
        model: model of the suites that run one, likewise.

    Returns:
        The record.

    Raises:
        InputError: a suite or the device is unknown, a number is below 1, or ``out`` has an unreadable record.
    """
    names = suites.select(what)
    for name, value in (("batch_size", batch_size), ("size", size)):
        if value is not None and value < 1:
            raise InputError(f"`{name}` is {value}: give 1 or more.")
    options = BenchmarkOptions(
        resolve_device(device or "auto"), "quick" if quick else "full", data_dir, batch_size, size, model
    )
    whole = new_record(options)
    path = Path(out) / f"{whole['machine']['slug']}.json" if out is not None else None
    if path is not None:
        record.merge(path, whole)  # an unwritable folder is reported before the work
    for name in names:
        run_suite(name, options, whole, path)
    if path is not None:
        log.info("written: %s", path)
    return whole


def new_record(options: BenchmarkOptions) -> dict[str, Any]:
    """A record of this machine without suites."""
    return {"format": record.FORMAT, "machine": machine.describe(options.device), "suites": {}}


def run_suite(
    name: str,
    options: BenchmarkOptions,
    whole: dict[str, Any],
    path: Path | None = None,
    *,
    wanted: Callable[[Case], bool] = lambda case: True,
    on_error: Callable[[Case, Exception], record.Absent] | None = None,
    count: bool = True,
) -> None:
    """Measure one suite into a record, which is written after every row.

    Args:
        name: the suite.
        options: the benchmark's options.
        whole: the record; rows that its suite has already are kept.
        path: the record's file; None writes none.
        wanted: called before each case; False skips the case.
        on_error: turns an exception of a case into an absent row; None raises it.
        count: whether to count launches at the end of the suite, which slows all later timing of this process.
    """
    module = suites.load(name)
    old = whole["suites"].get(name, {"rows": [], "absent": [], "settings": {}})
    rows = {(row["name"], row["variant"]): record.Row(**row) for row in old["rows"]}
    absent = [record.Absent(**one) for one in old["absent"]]
    settings: dict[str, Any] = {"before": machine.state(options.device), **old["settings"]}
    begun = time.perf_counter()
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def write() -> None:
        seconds = old.get("seconds", 0.0) + time.perf_counter() - begun
        commit = whole["machine"]["commit"]
        whole["suites"][name] = record.suite(date, seconds, options.quick, settings, [*rows.values()], absent, commit)
        if path is not None:
            record.merge(path, whole)

    def add(found: record.Row | record.Absent) -> None:
        if isinstance(found, record.Row):
            rows[found.name, found.variant] = found
        else:
            absent.append(found)
        write()

    for case in module.cases(options, settings):
        if not wanted(case):
            continue
        try:
            for found in case.rows():
                add(found)
        except Exception as error:
            if on_error is None:
                raise
            add(on_error(case, error))
    for found in getattr(module, "aggregate", lambda *_: ())(options, [*rows.values()]):
        add(found)
    for found in with_launches(options) if count else ():
        add(found)
    settings["after"] = machine.state(options.device)
    write()


def add_launches(path: Path, name: str, captured: list[tuple[record.Row, Any]]) -> None:
    """Count the launches of captured rows of a suite, and write them into the record at ``path``."""
    whole = record.read(path)
    rows = whole["suites"].get(name, {"rows": []})["rows"]
    options = BenchmarkOptions(torch.device("cuda"), uncounted=captured)
    counted = {(row.name, row.variant): row.more for row in with_launches(options)}
    for row in rows:
        row["more"] |= counted.get((row["name"], row["variant"]), {})
    record.merge(path, whole)
