"""Speed on a shared CPU: ``python -m fastreg.benchmarks.busy_machine [--rounds N] [--work training evaluation ...]``.

Each work runs alone, beside a process that keeps one core busy, and as two copies side by side. The three take turns,
and each round gives its own ratios; the median over the rounds is compared with the limit. The machine must be quiet
otherwise: the load average is printed, and a run on a loaded machine proves nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

BESIDE_ONE, TWO_COPIES = 1.4, 2.2  # largest ratios to the time alone
_FASTREG = (sys.executable, "-m", "fastreg")
_TRAIN = "train imagenet --model resnet18 --size 64 --epochs 2 -b 32 --reg mixup --ls 0.1 --device cpu"
_LOADER = """
import time
from fastreg.cli.threads import set_thread_defaults
set_thread_defaults()
from fastreg.pipelines import make_loader, open_dataset
data = open_dataset("imagenet", "train")
with make_loader(data, loader="folder", train=True, batch_size=64, size=224, device="cpu") as loader:
    for epoch in range(6):
        for batch in loader.batches(epoch * len(loader.source)):
            pass
"""


class Ratios(NamedTuple):
    """Times of a work relative to its time alone."""

    beside_one: float
    two_copies: float

    @property
    def good(self) -> bool:
        return self.beside_one <= BESIDE_ONE and self.two_copies <= TWO_COPIES


def commands(work: str, copy: int) -> Sequence[str]:
    """The command of a work; two copies write into folders of their own."""
    if work == "training":
        return [*_FASTREG, *_TRAIN.split(), "--output", f"copy{copy}"]
    if work == "evaluation":
        return [
            *_FASTREG,
            "eval",
            "run/trained",
            "--suite",
            "clean,fgsm",
            "--device",
            "cpu",
            "--out",
            f"copy{copy}/card",
        ]
    return [sys.executable, "-c", _LOADER]


def seconds(lines: Sequence[Sequence[str]], folder: Path) -> float:
    """Seconds until all command lines that start together are done.

    Raises:
        RuntimeError: a command fails.
    """
    start = time.perf_counter()
    running = [
        subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in lines
    ]
    errors = [process.communicate()[1] for process in running]
    taken = time.perf_counter() - start
    for process, error in zip(running, errors, strict=True):
        if process.returncode:
            raise RuntimeError(f"{' '.join(process.args)}: {error.strip().splitlines()[-1:]}")  # type: ignore[arg-type]
    return taken


@contextlib.contextmanager
def one_busy_process() -> Iterator[None]:
    """Keep one core busy for the length of the block."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(
    first: Sequence[str], second: Sequence[str], folder: Path, rounds: int, fresh: Sequence[str] = ()
) -> Ratios:
    """The median ratios of a work over interleaved rounds.

    Args:
        first: command line of the work.
        second: the same work beside it.
        folder: working directory.
        rounds: number of rounds.
        fresh: folders to remove before each run.
    """
    found = []
    for _ in range(rounds):
        times = []
        for lines, busy in (([first], False), ([first], True), ([first, second], False)):
            for name in fresh:
                shutil.rmtree(folder / name, ignore_errors=True)
            with one_busy_process() if busy else contextlib.nullcontext():
                times.append(seconds(lines, folder))
        found.append((times[1] / times[0], times[2] / times[0]))
    return Ratios(*(median(column) for column in zip(*found, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs="+", default=["training", "evaluation", "loader"])
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds([[*_FASTREG, "data", "sample", "imagenet"]], folder)
        seconds([[*_FASTREG, *_TRAIN.split(), "--output", "run", "--name", "trained"]], folder)
        print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f} after the preparation")
        all_good = True
        for work in given.work:
            ratios = measure(commands(work, 1), commands(work, 2), folder, given.rounds, ("copy1", "copy2"))
            all_good &= ratios.good
            verdict = "ok    " if ratios.good else "FAILED"
            beside = f"{ratios.beside_one:.2f} beside one busy process (at most {BESIDE_ONE})"
            print(f"{verdict} {work}: {beside}, {ratios.two_copies:.2f} for two copies (at most {TWO_COPIES})")
    sys.exit(0 if all_good else 1)


if __name__ == "__main__":
    main()
