"""Time of the compiled CPU route's first calls in a process, with and without machine code on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.timing import summary
from fastreg.kernels.dispatch import numba_error

FIRST_CALLS = "first calls"
WARM = 5  # processes

# What one process of training and attack calls; seconds, with the import of numba and without that of torch.
_CODE = """
import time
import torch
from fastreg.kernels import Plan, augment, fgsm_step, mixed_cross_entropy

images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
plan = Plan(flip=torch.tensor([True, False]), partner=torch.tensor([1, 0]), lam=torch.tensor([0.5, 0.5]))
start = time.perf_counter()
pixels = augment(images, plan, mean=(0.5,) * 3, std=(0.5,) * 3, dtype=torch.float32)
logits = torch.zeros(2, 10, requires_grad=True)
mixed_cross_entropy(logits, torch.tensor([1, 2]), 0.1).backward()
fgsm_step(pixels, pixels, 0.1)
print(time.perf_counter() - start)
"""


def first_calls(quick: bool) -> Iterator[Row | Absent]:
    """A row of one process that compiles everything, and one of processes that load it from disk."""
    if error := numba_error():
        yield Absent(FIRST_CALLS, OURS, error)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Row.of(f"{FIRST_CALLS}, nothing on disk", OURS, summary([_microseconds(folder)]))
        warm = [_microseconds(folder) for _ in range(1 if quick else WARM)]
        yield Row.of(f"{FIRST_CALLS}, compiled before", OURS, summary(warm))


def _microseconds(folder: str) -> float:
    (seconds,) = numbers_of_process(_CODE, NUMBA_CACHE_DIR=folder)
    return 1e6 * seconds


def numbers_of_process(code: str, *words: str, **variables: str) -> list[float]:
    """The numbers that a Python process prints, started with words and environment variables."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, "-c", code, *words]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [float(word) for word in run.stdout.split()]
