"""What a GPU's time is made of, counted while compiled kernels run on the CPU: warp instructions, memory accesses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.ptx.parse import Instruction

# Classes of PTX instructions, and the lanes that a multiprocessor of sm_90 serves per clock (CUDA C++ Programming
# Guide, table "Throughput of Native Arithmetic Instructions"; memory: load-store units). "free" are copies and
# addresses of parameters, which ptxas removes.
LANES = {"float": 128, "integer": 64, "double": 64, "special": 16, "convert": 64, "memory": 32, "free": 0}
CLASSES = tuple(LANES)
_SPECIAL = ("ex2", "lg2", "rcp", "rsqrt", "sqrt", "sin", "cos", "tanh", "div")
_MEMORY = ("ld", "st", "red", "atom", "shfl", "bar", "ldmatrix", "stmatrix")
_KINDS = ("global loads", "global stores", "shared loads", "shared stores")


def class_of(i: Instruction) -> str:
    """The class of an instruction; shuffles and barriers count as memory."""
    if i.opcode in ("mov", "cvta") or (i.opcode == "ld" and "param" in i.parts):
        return "free"
    if i.opcode in _MEMORY:
        return "memory"
    if i.opcode in _SPECIAL:
        return "double" if "f64" in i.parts else "special"
    if i.opcode == "cvt":
        return "convert"
    if "f64" in i.parts:
        return "double"
    return "float" if any(part in ("f32", "f16", "bf16", "f16x2", "bf16x2") for part in i.parts) else "integer"


def of_run(run: Sequence[Instruction]) -> str:
    """Instructions of a straight run by class, as a C initializer."""
    kinds = [class_of(i) for i in run]
    return f"{{ {', '.join(str(kinds.count(c)) for c in CLASSES)} }}"


class Counts(NamedTuple):
    """The counts of one launch, scaled to its whole grid where some CTAs ran."""

    kernel: str
    ctas: int
    issued: dict[str, float]  # warp instructions by class
    accesses: dict[str, float]  # warp accesses
    sectors: float  # of 32 bytes in global memory, of all accesses
    touched: float  # the same, each once per CTA: what its L1 cache asks the L2 cache for
    wavefronts: float  # of shared memory; more than its accesses: bank conflicts, or wide accesses

    @classmethod
    def of_job(cls, kernel: str, job: Any, ctas: int, scale: float) -> Counts:
        issued = {c: scale * n for c, n in zip(CLASSES, job.issued) if c != "free"}
        accesses = {kind: scale * n for kind, n in zip(_KINDS, job.accesses)}
        sectors, wavefronts = scale * sum(job.parts[:2]), scale * sum(job.parts[2:])
        return cls(kernel, ctas, issued, accesses, sectors, scale * job.touched, wavefronts)
