"""Launches on CPU tensors: PTX compiled by Triton as for a GPU, translated to C, and run on the tensors' memory.

Every launch runs twice, with the opposite order of warps and CTAs, and with other values in uninitialized registers and
shared memory: the results must be equal to the bit. The emulator also checks bounds and alignment of every access,
races and uninitialized reads in shared memory, two CTAs that touch one address, diverging barriers and lanes, and
endless loops.

Not modeled: ptxas, concurrency inside a warp, torch's own CUDA operations, CUDA graphs.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as triton_compile

from tests.ptx.build import FAULTS, HARMLESS, Job, Range, build
from tests.ptx.counts import Counts
from tests.ptx.translate import Kernel, translate


class Mode(NamedTuple):
    """Rounding of the instructions that the hardware does not round exactly."""

    name: str
    eps: int = 0  # of arithmetic.h
    contract: bool = False  # products that an addition takes unrounded


EXACT = Mode("exact")
# Each at its largest documented error.
APPROXIMATE = (Mode("+eps", 1), Mode("-eps", -1), Mode("+-eps", 2), Mode("by reciprocals", 3))
CONTRACTED = Mode("contracted", contract=True)


@dataclass
class Compiled:
    kernel: Kernel
    run: Any  # the C function
    shared: int
    types: list[tuple[str, str]]  # name and Triton type of each argument that is passed
    warps: int
    fusion: bool
    optimized: bool = False


@dataclass
class Report:
    """Faults and unstable results: a key that names the position, and the first example."""

    launches: int = 0
    faults: dict[tuple[str, str, str], str] = field(default_factory=dict)  # kernel, kind, source line
    unstable: dict[tuple[str, str], str] = field(default_factory=dict)  # kernel, argument
    approximate: bool = False  # an approximate instruction ran
    contractible: bool = False  # a kernel with contractible additions ran

    def errors(self) -> list[str]:
        hard = (f"{' '.join(key)}: {text}" for key, text in self.faults.items() if key[1] not in HARMLESS)
        return [*hard, *(f"unstable {' '.join(key)}: {text}" for key, text in self.unstable.items())]


def extent(t: torch.Tensor) -> tuple[int, int]:
    """First and one past the last byte of a tensor's elements."""
    if not t.numel():
        return t.data_ptr(), t.data_ptr()
    last = sum((n - 1) * s for n, s in zip(t.shape, t.stride()))
    return t.data_ptr(), t.data_ptr() + (last + 1) * t.element_size()


class Emulator:
    """Compiles and runs launches. ``report`` collects faults."""

    _numbers = itertools.count(1000)

    def __init__(self, capability: int = 90, mutate: Callable[[str], str] | None = None):
        self.target = GPUTarget("cuda", capability, 32)
        self.number = next(self._numbers)  # of the device: another emulator compiles for itself
        self.mutate = mutate  # of the PTX, to test that errors are noticed
        self.report = Report()
        self.mode = EXACT
        self.poison = 0xA5A5A5A5
        self.twice = True
        # From (kernel, grid) to the CTAs that run: for tensors too large to touch.
        self.only: Callable[[str, tuple[int, ...]], list[int]] | None = None
        self.counts: list[Counts] | None = None  # a list gets the counts of each launch

    def compile(self, fn, signature, constants, options, attributes) -> Compiled:
        source = ASTSource(fn, signature, constants, attributes)
        made = triton_compile(source, target=self.target, options=options.__dict__)
        kernel = translate(self.mutate(made.asm["ptx"]) if self.mutate else made.asm["ptx"])
        types = [(name, signature[name]) for name in fn.arg_names if signature[name] != "constexpr"]
        assert kernel.threads == 32 * options.num_warps, (kernel.threads, options.num_warps)
        assert kernel.parameters >= len(types), (kernel.parameters, types)
        run = build(kernel.source, 0)
        return Compiled(kernel, run, made.metadata.shared, types, options.num_warps, options.enable_fp_fusion)

    def launch(self, fn, compiled: Compiled, grid: Sequence[int], arguments: dict[str, Any]) -> None:
        grid = (*grid, *(1,) * (3 - len(grid)))
        if 0 in grid:  # Triton does not launch then
            return
        assert 0 < grid[0] < 2**31, (fn.__name__, grid)
        assert all(0 < n < 65536 for n in grid[1:]), (fn.__name__, grid)
        launch = _Launch(fn.__name__, compiled, grid, arguments)
        self.report.launches += 1
        if self.only:
            job, _ = self._run(launch, False, chosen=self.only(fn.__name__, grid))
            self._note(launch, job)
            return
        threads = grid[0] * grid[1] * grid[2] * compiled.kernel.threads
        if threads * compiled.kernel.instructions > 2e8 and not compiled.optimized:
            compiled.run, compiled.optimized = build(compiled.kernel.source, 1), True
        before = launch.memory()
        job, ranges = self._run(launch, False)
        self._note(launch, job)
        self.report.approximate |= bool(job.approx)
        self.report.contractible |= bool(compiled.kernel.contractible and compiled.fusion)
        if self.twice:
            first = [now if r.wrote else None for now, r in zip(launch.memory(), ranges)]
            launch.restore(before)
            # Where a byte may be read and written, the second run also notes its readers.
            job, _ = self._run(launch, True, [bool(r.wrote and r.read) for r in ranges])
            self._note(launch, job)
            self._compare(launch, first)
            launch.restore(first)

    def _run(self, launch: _Launch, reverse: bool, readers: Sequence[bool] = (), chosen: Sequence[int] = ()):
        ranges = (Range * max(1, len(launch.spans)))()
        keep = []  # the owners' memory
        for k, (r, (lo, hi)) in enumerate(zip(ranges, launch.spans)):
            r.lo, r.hi = lo, hi
            if chosen:
                continue
            keep.append((ctypes.c_uint32 * (hi - lo))())
            r.owner = ctypes.addressof(keep[-1])
            if readers and readers[k]:
                keep.append((ctypes.c_uint32 * (hi - lo))())
                r.reader = ctypes.addressof(keep[-1])
        compiled = launch.compiled
        job = Job(
            params=ctypes.addressof(launch.parameters),
            grid=(ctypes.c_uint32 * 3)(*launch.grid),
            warps=compiled.warps,
            smem=compiled.shared,
            nranges=len(launch.spans),
            ranges=ranges,
            poison=self.poison ^ (0xFFFFFFFF if reverse else 0),
            reverse=reverse,
            eps=self.mode.eps,
            contract=self.mode.contract and compiled.fusion,
        )
        only = (ctypes.c_uint64 * max(1, len(chosen)))(*chosen)
        if chosen:
            job.nonly, job.only = len(chosen), ctypes.addressof(only)
        job.counting = self.counts is not None
        compiled.run(ctypes.byref(job))
        if self.counts is not None:
            ctas = math.prod(launch.grid)
            self.counts.append(Counts.of_job(launch.name, job, ctas, ctas / (len(chosen) or ctas)))
        return job, list(ranges)[: len(launch.spans)]

    def _compare(self, launch: _Launch, first: list[bytes | None]) -> None:
        for (lo, _), data, now in zip(launch.spans, first, launch.memory()):
            if data is not None and now != data:
                at = next(i for i, (a, b) in enumerate(zip(data, now)) if a != b)
                text = f"byte {at} of {len(data)} is {data[at]} or {now[at]}"
                self.report.unstable.setdefault((launch.name, launch.argument(lo + at)), text)

    def _note(self, launch: _Launch, job: Job) -> None:
        kernel = launch.compiled.kernel
        for kind, fault in zip(FAULTS, job.fault):
            if fault.count:
                text = kernel.lines[fault.line - 1].strip() if fault.line else ""
                where = launch.argument(fault.addr) if fault.addr else ""
                example = f"{fault.count} times, e.g. {text}, CTA {fault.cta}, thread {fault.tid}, address in {where}"
                place = kernel.places.get(fault.line, "").split(" @")[0]
                self.report.faults.setdefault((launch.name, kind, place), example)


class _Launch:
    """The arguments of a launch as the kernel sees them."""

    def __init__(self, name: str, compiled: Compiled, grid: tuple[int, ...], arguments: dict[str, Any]):
        self.name = name
        self.compiled = compiled
        self.grid = grid
        self.extents: list[tuple[int, int, str]] = []
        packed = bytearray(8 * compiled.kernel.parameters)
        for slot, (argument, type_) in enumerate(compiled.types):
            bits = self._pack(argument, type_, arguments[argument])
            packed[8 * slot : 8 * slot + len(bits)] = bits
        self.parameters = (ctypes.c_char * len(packed)).from_buffer(packed)
        self.spans: list[tuple[int, int]] = []  # bytes of all tensors, overlapping ones merged
        for lo, hi, _ in sorted(extent for extent in self.extents if extent[1] > extent[0]):
            if self.spans and lo < self.spans[-1][1]:
                lo, hi = self.spans[-1][0], max(self.spans.pop()[1], hi)
            self.spans.append((lo, hi))

    def _pack(self, argument: str, type_: str, value: Any) -> bytes:
        if type_.startswith("*"):
            self.extents.append((*extent(value), argument))
            return struct.pack("<Q", value.data_ptr())
        if type_ in ("fp32", "fp64"):
            return struct.pack("<f" if type_ == "fp32" else "<d", value)
        bits = max(int(type_[1:]), 8)
        return (int(value) & ((1 << bits) - 1)).to_bytes(bits // 8, "little")

    def memory(self) -> list[bytes]:
        return [ctypes.string_at(lo, hi - lo) for lo, hi in self.spans]

    def restore(self, memory: Sequence[bytes | None]) -> None:
        for (lo, hi), data in zip(self.spans, memory):
            if data is not None:
                ctypes.memmove(lo, data, hi - lo)

    def argument(self, address: int) -> str:
        """The argument nearest to an address."""
        distance = ((max(lo - address, address - hi + 1, 0), name) for lo, hi, name in self.extents)
        return min(distance, default=(0, ""))[1]
