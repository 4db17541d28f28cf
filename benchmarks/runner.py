"""Runs suites, shows them as tables, and writes one JSON per machine."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from fastreg.benchmarks import machine, record
from fastreg.benchmarks.options import Job
from fastreg.benchmarks.report.terminal import show
from fastreg.errors import InputError, unknown

# in the order of `all`: most valuable first
SUITES = ("kernels", "loss", "throughput", "corruptions", "loaders", "eval")


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
    say=print,
) -> dict[str, Any]:
    """Run one suite, or ``all``; print its table; return the record.

    ``out``: a folder; ``<machine>.json`` there gets the suites that ran, after each row group, and keeps its others.
    ``quick``: about a quarter of the time, fewer cases. ``batch_size``, ``size`` and ``model`` override what the suite
    would take on that device. Raises InputError for an unknown suite or device, or an unreadable record in ``out``.
    """
    if what not in (*SUITES, "all"):
        raise unknown("benchmark", what, (*SUITES, "all"))
    for name, value in (("--batch-size", batch_size), ("--size", size)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, but is {value}.")
    job = Job(machine.pick_device(device), quick, data_dir, batch_size, size, model, say)
    whole: dict[str, Any] = {"format": record.FORMAT, "machine": machine.describe(job.device), "suites": {}}
    path = Path(out) / f"{whole['machine']['slug']}.json" if out is not None else None
    if path is not None:
        record.merge(path, whole)  # so that an unwritable folder is known before the work
    for name in SUITES if what == "all" else (what,):
        rows: list[record.Row] = []
        absent: list[record.Absent] = []
        settings: dict[str, Any] = {"before": machine.state(job.device)}
        begun = time.perf_counter()
        module = importlib.import_module(f"fastreg.benchmarks.suites.{name}")
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for found in module.rows(job, settings):
            (rows if isinstance(found, record.Row) else absent).append(found)
            seconds, commit = time.perf_counter() - begun, whole["machine"]["commit"]
            content = record.suite(date, seconds, quick, settings, rows, absent, commit)
            whole["suites"][name] = content
            if path is not None:
                record.merge(path, whole)
        settings["after"] = machine.state(job.device)
        if path is not None:
            record.merge(path, whole)
        show(name, whole, say)
    if path is not None:
        say(f"written: {path}")
    return whole
