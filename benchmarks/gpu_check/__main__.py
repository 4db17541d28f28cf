"""Check and time fastreg on a GPU: ``python -m fastreg.benchmarks.gpu_check MODE --out DIR``.

Runs from a bare checkout: Python, torch with CUDA, triton, numpy, opencv, pillow and typer are enough; a check or a row
that needs another package names it. Modes:

* ``correctness``: every method's training step, captured graphs, loaders, whole evaluations and every kernel against
  float32 on the CPU, in under four minutes on 16 cores.
* ``speed``: the main rows of every suite beside the targets, in under four minutes.
* ``full``: all checks and all rows, without a time limit.

DIR gets ``checks.json``, ``<machine>.json``, ``tracebacks.txt``, ``summary.txt`` and the archive of compiled kernels,
which ``--cache`` carries into the next run. The last line is the verdict. Exit code 1: a check, a row or a target
failed, or nothing was checked. ``--dry`` prints the time plan on any machine; ``--device cpu`` rehearses a mode without
a GPU and without its time limits.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path

MODES = ("correctness", "speed", "full")
SECONDS = 230.0  # of correctness and of speed
SUMMARY = "summary.txt"
LARGEST = 4_000_000  # bytes of a file in DIR, the archive aside


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastreg.benchmarks.gpu_check", description="Check and time fastreg on a GPU."
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--out", help="folder for the results; files of an earlier run of the mode are deleted")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 ...; cpu rehearses the mode")
    parser.add_argument("--quick", action="store_true", help="correctness: fewer shapes, qualities and severities")
    parser.add_argument("--processes", type=int, default=8, help="worker processes of correctness")
    parser.add_argument("--cache", help="archive of compiled kernels from an earlier run")
    parser.add_argument("--data-dir", help="folder of the imagenet data set")
    parser.add_argument("--dry", action="store_true", help="print the time plan and run nothing on a GPU")
    given = parser.parse_args(arguments)
    if given.dry:
        from fastreg.benchmarks.gpu_check.plan import plan_text

        print(plan_text(given.mode, given.quick, given.processes))
        return 0
    if given.out is None:
        parser.error("--out is missing: give a folder for the results")
    refused = _refuse(Path(given.out).resolve(), given.device)
    if refused:
        print(f"gpu_check: {refused}", file=sys.stderr)
        return 2
    return run(given)


def _refuse(out: Path, device: str) -> str:
    """The reason why the check cannot run; empty when it can."""
    import torch

    from fastreg.benchmarks import RESULTS

    if device.startswith("cuda") and not torch.cuda.is_available():
        return "this machine has no CUDA device; run it on a machine with one, or rehearse it with --device cpu."
    if out == RESULTS:
        return f"{out} has the package's own records: give another folder, and copy a record that passes."
    return ""


def run(given: argparse.Namespace) -> int:
    """Run a mode, print its short table and the verdict, and return the exit code."""
    from fastreg.benchmarks.gpu_check import cache, correctness, speed

    begun = time.monotonic()
    out = Path(given.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    clear(out, given.mode)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // max(given.processes, 1))))
    if given.mode == "correctness":  # its workers share the cores; speed's only worker has all
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")
    cache.use()
    lines, faults = [], []
    if given.cache:
        lines.append(f"{cache.unpack(Path(given.cache), cache.folder())} compiled files from {given.cache}")
    limited = given.mode != "full" and given.device.startswith("cuda")
    deadline = begun + SECONDS if limited else math.inf
    if given.mode != "speed":
        results = correctness.run_correctness(out, given.device, deadline, quick=given.quick, processes=given.processes)
        lines += correctness.summary(results)
        faults += [] if correctness.passed(results) else ["checks failed"]
    if given.mode != "correctness":
        scope = "full" if given.mode == "full" else "main"
        data_dir = given.data_dir or (sample_data(lines) if given.mode == "full" else None)
        notes = speed.run_speed(out, given.device, deadline, scope=scope, data_dir=data_dir, processes=given.processes)
        lines += [*notes, *speed.summary(out), *speed.comparison_lines(out)]
        crashed = any(note.startswith("FAILED") for note in notes)
        faults += ["rows or targets failed"] if crashed or not speed.passed(out) else []
    seconds = time.monotonic() - begun
    verdict = f"VERDICT {'FAILED: ' + ', '.join(faults) if faults else 'passed'} ({given.mode}, {seconds:.0f} s)"
    text = "\n".join([*lines, verdict])
    (out / SUMMARY).write_text(text + "\n")
    truncate(out)
    print(text)
    return int(bool(faults))


def sample_data(lines: list[str]) -> str | None:
    """Write the imagenet sample if a suite needs imagenet and it is missing; return its folder, else None."""
    from fastreg.benchmarks.gpu_check import cache
    from fastreg.benchmarks.suites import benchmarks
    from fastreg.errors import InputError, RunError
    from fastreg.pipelines import open_dataset, write_sample

    if not any("imagenet" in row.needs for row in benchmarks().values()):
        return None
    folder = cache.folder() / "data" / "imagenet"
    try:
        open_dataset("imagenet", "train")
        return None
    except InputError:
        pass
    try:
        if not folder.is_dir():
            write_sample("imagenet", folder)
        return str(folder)
    except (InputError, RunError) as error:
        lines.append(f"rows fed by loaders are absent: {error}")
        return None


def clear(out: Path, mode: str) -> None:
    """Delete the files of an earlier run of the mode, so that the summary covers this run only."""
    from fastreg.benchmarks.gpu_check import cache, speed
    from fastreg.benchmarks.gpu_check.correctness import RESULTS
    from fastreg.benchmarks.gpu_check.work import TRACEBACKS

    stale = [out / SUMMARY, out / TRACEBACKS]
    stale += [] if mode == "speed" else [out / RESULTS, out / cache.ARCHIVE]
    stale += [] if mode == "correctness" else speed.records(out)
    for path in stale:
        path.unlink(missing_ok=True)


def truncate(out: Path) -> None:
    """Keep the first bytes of a text file that is too large to be carried."""
    for path in out.glob("*.txt"):
        if path.stat().st_size > LARGEST:
            path.write_bytes(path.read_bytes()[:LARGEST])


if __name__ == "__main__":
    sys.exit(main())
