"""Every check on a GPU: compile all kernels in parallel, then run the checks in parallel, then compute-sanitizer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from fastreg.benchmarks.gpu_check import cache
from fastreg.benchmarks.gpu_check.check import NOT_CHECKED
from fastreg.benchmarks.gpu_check.checks import records_kernels, split
from fastreg.benchmarks.gpu_check.compile_all import compile_all
from fastreg.benchmarks.gpu_check.pool import Pool, Request
from fastreg.benchmarks.gpu_check.sanitize import sanitize
from fastreg.benchmarks.gpu_check.work import CHECKS, TRACEBACKS

PROCESSES = 8
RESULTS = "checks.json"
WORK = "fastreg.benchmarks.gpu_check.work"


def run_correctness(
    out: Path, device: str, deadline: float, *, quick: bool = False, processes: int = PROCESSES, source: str = CHECKS
) -> list[dict[str, Any]]:
    """Run all checks.

    Args:
        out: folder; gets ``checks.json`` as checks finish, ``tracebacks.txt`` and the archive of compiled kernels.
        device: "cpu", "cuda" or "cuda:N".
        deadline: of ``time.monotonic``.
        quick: fewer shapes, severities and qualities.
        processes: worker processes.
        source: "module:function" that gives the checks.

    Returns:
        One result per check; a check for which no time was left has failed.
    """
    from fastreg.benchmarks.gpu_check.work import checks_by_name

    checks = list(checks_by_name(source, quick).values())
    results: dict[str, dict[str, Any]] = {}
    written = 0.0

    def answer(name: str, result: dict[str, Any]) -> None:
        nonlocal written
        if "crash" in result:
            result = {"ok": False, "detail": result["crash"], "seconds": 0.0, "traceback": ""}
        if result["traceback"]:
            with open(out / TRACEBACKS, "a") as file:
                file.write(f"{name}\n{result['traceback']}\n")
        kept = {key: result[key] for key in ("ok", "detail", "seconds")}
        results[name] = {"name": name, **kept}
        if time.monotonic() - written > 3:  # a time limit may end this process at any moment
            write_results(out, list(results.values()))
            written = time.monotonic()

    pool = Pool(processes, out / TRACEBACKS)
    try:
        if device.startswith("cuda"):
            recorded = [check.name for check in checks if records_kernels(check.name)]
            compile_all(pool, recorded, f"{WORK}:record_launches", (source, quick), deadline)
        names = split(checks, processes, extra=0.1)
        requests = [Request(f"{WORK}:run_checks", share, (source, quick, device)) for share in names]
        pool.run(requests, answer, deadline)
    finally:
        pool.close()
    for check in checks:
        not_run = {"name": check.name, "ok": False, "detail": "not run: no time was left", "seconds": 0.0}
        results.setdefault(check.name, not_run)
    found = [results[check.name] for check in checks]
    if device.startswith("cuda"):
        cache.pack(cache.folder(), out / cache.ARCHIVE)
        found += sanitize(deadline - time.monotonic(), out / TRACEBACKS)
    write_results(out, found)
    return found


def write_results(out: Path, results: list[dict[str, Any]]) -> None:
    from fastreg import files

    files.write_json(out / RESULTS, results)


def read_results(out: Path) -> list[dict[str, Any]]:
    """The results that :func:`run_correctness` has written; none where there is no file."""
    path = out / RESULTS
    return json.loads(path.read_text()) if path.is_file() else []


def summary(results: list[dict[str, Any]]) -> list[str]:
    """A short table: counts by kind of check, then each failure, then the reasons of checks that did not run."""
    kinds: dict[str, list[int]] = {}
    for result in results:
        counts = kinds.setdefault(result["name"].split()[0], [0, 0, 0])
        counts[1 if not result["ok"] else 2 if result["detail"].startswith(NOT_CHECKED) else 0] += 1
    lines = [f"{'checks':20} {'hold':>6} {'fail':>6} {'not checked':>12}"]
    lines += [f"{kind:20} {hold:6} {fail:6} {unchecked:12}" for kind, (hold, fail, unchecked) in kinds.items()]
    lines += [f"FAILED {result['name']}: {result['detail']}" for result in results if not result["ok"]]
    reasons = {r["detail"] for r in results if r["ok"] and r["detail"].startswith(NOT_CHECKED)}
    return [*lines, *sorted(reasons)]


def passed(results: list[dict[str, Any]]) -> bool:
    """Whether no check failed, and at least one was checked."""
    checked = [r for r in results if not r["detail"].startswith(NOT_CHECKED)]
    return bool(checked) and all(r["ok"] for r in results)
