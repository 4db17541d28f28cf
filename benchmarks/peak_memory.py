"""Peak memory of ``augment`` on a CPU, in processes of its own, by the compiled route and by the reference."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fastreg.benchmarks.first_calls import numbers_of_process
from fastreg.benchmarks.record import OURS, REFERENCE, Absent, Row
from fastreg.benchmarks.timing import summary
from fastreg.kernels.dispatch import numba_error

PEAK_MEMORY = "peak memory, augment"
IMAGES = 64
PLANS = ("mixup", "crop", "crop mixup")

# Prints microseconds and the peak's share of a call, after a small one has loaded what a call needs.
CODE = f"""
import ctypes, sys, time
if sys.argv[1] == {REFERENCE!r}:
    sys.modules["numba"] = None
import torch
from fastreg.kernels import Plan, augment

torch.set_num_threads(1)

def memory(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))

def run(n):
    fields = {{}}
    if "crop" in sys.argv[2]:
        fields["crop"] = torch.tensor([[3.0, 3.0, 200.0, 200.0]]).repeat(n, 1)
    if "mixup" in sys.argv[2]:
        fields |= {{"partner": torch.arange(n).flip(0), "lam": torch.full((n,), 0.3)}}
    return augment(images[:n], Plan(**fields), mean=(0.5,) * 3, std=(0.5,) * 3, dtype=torch.float32)

images = torch.zeros({IMAGES}, 224, 224, 3, dtype=torch.uint8)
run(2)
ctypes.CDLL("libc.so.6").malloc_trim(0)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before, start = memory("VmRSS"), time.perf_counter()
out = run({IMAGES})
print(1e6 * (time.perf_counter() - start), (memory("VmHWM") - before) / (4 * out.numel()))
"""


def peak_memory(plan: str) -> Iterator[Row | Absent]:
    """The rows of one plan of ``PLANS``."""
    name = f"{PEAK_MEMORY} {plan}"
    if not os.access("/proc/self/clear_refs", os.W_OK):
        yield Absent(name, OURS, "Linux alone can reset the peak of a process's memory")
        return
    if error := numba_error():
        yield Absent(name, OURS, error)
    for variant in (REFERENCE,) if error else (OURS, REFERENCE):
        us, share = numbers_of_process(CODE, variant, plan)
        yield Row.of(name, variant, summary([us]), images=IMAGES, more={"peak_of_output": round(share, 3)})
