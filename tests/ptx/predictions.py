"""Predicted times of every registered operation, from counts: ``python -m tests.ptx.predictions`` (minutes).

Writes kernels/PREDICTIONS.md. Predictions are no measurements, no targets and no rows of a benchmark.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from fastreg.benchmarks.targets import COPY_RATE
from fastreg.kernels.registry import Op, operations
from tests.ptx.counts import LANES, Counts
from tests.ptx.emulator import Emulator
from tests.ptx.launcher import emulating

SMS, CLOCK = 132, 1.755e9  # H100 SXM and H200
SCHEDULERS = 4
L2_BYTES = 64  # from the L2 cache to one multiprocessor per clock
LAUNCH = 2e-6  # seconds, the floor of a kernel
SAMPLE = 12  # CTAs of a launch that run
PAGE = Path(__file__).parents[2] / "kernels" / "PREDICTIONS.md"
HEAD = """# Predicted times

Predictions, made on a CPU from counts of the compiled kernels. No GPU has run them: these are no measurements, no
targets, and no benchmark reads them. `python -m tests.ptx.predictions` writes this file.

Each operation runs at the size of its benchmark. The emulator of `tests/ptx` counts, along the executed path of
{sample} programs of each launch, warp instructions by class and 32-byte sectors of device memory per warp access.

    issue    = max(warp instructions / {schedulers}, max over classes of 32 x warp instructions / lanes) x waves / ({sms} SMs x {clock} GHz)
    memory   = least bytes of the operation / copy rate    ({h100} TB/s on an H100, {h200} TB/s on an H200)
    cache    = 32 x sectors / ({sms} SMs x {l2} bytes x {clock} GHz)
    time     = max(issue, memory, cache, {launch:g} us x launches)

"waves" is the number of programs, rounded up to a multiple of the SMs, over their number. Lanes per clock: {lanes}.
PTX is not machine code: ptxas merges and removes instructions, so "issue" is an upper estimate; latency and occupancy
are not counted, so "time" may be too low. "sectors" is the number that a program touches, each counted once, over
that of the least bytes. "over limit" is time over memory on an H100.

The table has every operation of the registry. What runs as PyTorch's operations has no row: the corruptions of
ImageNet-C-bar, the mix of AugMix's chains, color jitter without clipping, models, attacks beside their steps.

| operation | launches | M warp instructions | sectors | issue, us | cache, us | memory, us: H100 | H200 | time, us: H100 | H200 | over limit |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""  # noqa: E501


class Prediction(NamedTuple):
    name: str
    launches: int
    instructions: float
    sectors: float  # over those of the least bytes
    issue: float  # seconds
    cache: float
    memory: dict[str, float]  # by card

    def seconds(self, card: str) -> float:
        return max(self.issue, self.cache, self.memory[card], LAUNCH * self.launches)

    @property
    def over_limit(self) -> float:
        return self.seconds("H100") / self.memory["H100"]

    def row(self) -> str:
        cells = [self.issue, self.cache, *self.memory.values(), *(self.seconds(card) for card in self.memory)]
        times = " | ".join(f"{1e6 * seconds:.1f}" for seconds in cells)
        head = f"| {self.name} | {self.launches} | {self.instructions / 1e6:.2f} | {self.sectors:.2f} | "
        return f"{head}{times} | {self.over_limit:.2f} |"


def issue_seconds(counts: Counts) -> float:
    waves = math.ceil(counts.ctas / SMS) * SMS / counts.ctas
    clocks = [sum(counts.issued.values()) / SCHEDULERS, *(32 * n / LANES[c] for c, n in counts.issued.items())]
    return max(clocks) * waves / (SMS * CLOCK)


def count(emulator: Emulator, op: Op, sample: int = SAMPLE) -> tuple[list[Counts], int]:
    """The counts of the operation's launches at its large size, and its least bytes."""

    def chosen(name: str, grid: tuple[int, ...]) -> list[int]:
        total = math.prod(grid)
        return sorted({total * k // sample for k in range(min(sample, total))})

    arguments = op.example("cpu", small=False)
    emulator.counts, emulator.only = [], chosen
    try:
        with emulating(emulator):
            op.triton(**arguments)
        return emulator.counts, op.bytes(arguments)
    finally:
        emulator.counts = emulator.only = None


def predict(emulator: Emulator, op: Op) -> Prediction:
    counts, least = count(emulator, op)
    sectors, touched = sum(c.sectors for c in counts), sum(c.touched for c in counts)
    return Prediction(
        op.name,
        len(counts),
        sum(sum(c.issued.values()) for c in counts),
        32 * touched / least,
        sum(map(issue_seconds, counts)),
        32 * sectors / (SMS * L2_BYTES * CLOCK),
        {card: least / rate for card, rate in COPY_RATE.items()},
    )


def page(predictions: Iterator[Prediction]) -> str:
    lanes = ", ".join(f"{name} {n}" for name, n in LANES.items() if n)
    head = HEAD.format(
        sample=SAMPLE, schedulers=SCHEDULERS, sms=SMS, clock=CLOCK / 1e9, l2=L2_BYTES, launch=1e6 * LAUNCH, lanes=lanes,
        h100=COPY_RATE["H100"] / 1e12, h200=COPY_RATE["H200"] / 1e12,
    )  # fmt: skip
    return head + "".join(prediction.row() + "\n" for prediction in predictions)


def made() -> Iterator[Prediction]:
    emulator = Emulator()
    for op in operations():
        prediction = predict(emulator, op)
        print(prediction.row(), file=sys.stderr, flush=True)
        yield prediction


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(made()))
