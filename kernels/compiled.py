"""The compiled CPU route: numba functions over slices of a batch, on threads of their own.

Only the ``cpu.py`` of an operation imports this module, after ``dispatch.use_compiled`` has found numba. A kernel is a
function of ``(first, last, *arguments)`` that does the elements ``first`` to ``last`` - 1 of a batch; ``run`` calls it
on several slices at once. numba's own threads are not used: their portable layer must not be entered by two Python
threads, and their OpenMP layer ends a forked process, which the workers of a DataLoader are.

Machine code is kept on disk for one kind of CPU: in ``__pycache__`` beside the kernel's file, or in the user's cache
folder where that is read-only. A change of any file of this folder compiles them anew, since one may be inlined in
another.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.core import event
from numba.extending import intrinsic
from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger("fastreg")
_KERNELS = Path(__file__).parent
_pools: dict[int, ThreadPoolExecutor] = {}


def compiled(function: Callable | None = None, *, fastmath: Collection[str] = ()) -> Any:
    """Decorator: ``numba.njit`` with IEEE arithmetic, without the GIL, with machine code that is kept on disk.

    No product and sum are contracted to one rounding: results equal the reference's to the bit where the order of
    operations does. Write ``fma`` where torch contracts. ``fastmath`` takes LLVM's flags for kernels that need no equal
    bits: "reassoc", with which a loop adds up in vector instructions, and "contract".
    """
    if function is None:
        return partial(compiled, fastmath=fastmath)
    options = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}
    try:
        kernel = numba.njit(function, cache=True, **options)
        _keep(kernel._cache)
    except (RuntimeError, AttributeError):  # no folder can be written, or a numba whose cache differs
        return numba.njit(function, **options)
    return kernel


def _keep(cache: Any) -> None:
    """Compare stored code with the sources of all kernels, not of one alone; store none on a full disk."""
    cache._cache_file._source_stamp = (_sources(), cache._cache_file._source_stamp)
    store = cache.save_overload

    def store_if_possible(*given: Any) -> None:
        with suppress(OSError):
            store(*given)

    cache.save_overload = store_if_possible


@lru_cache
def _sources() -> str:
    """Digest of the files whose functions and constants CPU kernels use."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_KERNELS.rglob("*.py")))).hexdigest()


def run(kernel: Any, count: int, *arguments: Any, cost: float = 1e9) -> None:
    """Call ``kernel(first, last, *arguments)`` on slices of ``range(count)``, on up to torch's number of threads.

    A kernel has one signature: every call gives arguments of the same types. ``as_array`` makes arrays of one type from
    tensors of any layout.

    Args:
        kernel: Function of ``compiled``. Its slices must not write the same element.
        count: Number of elements, such as the samples of a batch. 0: nothing is called.
        arguments: What the kernel takes after the slice: arrays and numbers.
        cost: Nanoseconds of the whole call on one thread, roughly. A slice takes 100 us or more, as another thread
            takes some 20 us to start.
    """
    if count == 0:
        return
    if not kernel.overloads:
        _load(kernel, (0, count, *arguments))
    threads = int(min(torch.get_num_threads(), count, cost // 100_000))
    if threads <= 1:
        kernel(0, count, *arguments)
        return
    edges = [count * i // threads for i in range(threads + 1)]
    pool = _pool(torch.get_num_threads())
    others = [pool.submit(kernel, first, last, *arguments) for first, last in pairwise(edges[1:])]
    kernel(0, edges[1], *arguments)
    for other in others:
        other.result()


def _load(kernel: Any, arguments: tuple[Any, ...]) -> None:
    """Load the machine code from disk, or compile it, for the types of ``arguments`` alone.

    numba's index allows one writer: of two processes that store different signatures or CPUs at once, one
    could read the other's code. So one process at a time loads or compiles, and a kernel has one signature.
    """
    with _locked(kernel.stats.cache_path), event.install_listener("numba:compile", _Announcement(kernel)):
        if not kernel.overloads:  # another thread may have waited for the lock, too
            kernel.compile(tuple(numba.typeof(value) for value in arguments))
    kernel.disable_compile()


@contextmanager
def _locked(folder: str | None) -> Iterator[None]:
    descriptor = None
    if folder and fcntl:
        with suppress(OSError):  # a file system without locks: numba's own files are still replaced whole
            descriptor = os.open(os.path.join(folder, "numba.lock"), os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile has the descriptor, too
            os.close(descriptor)


class _Announcement(event.Listener):
    """One line per process, before the first kernel is compiled: that takes seconds. Loading from disk logs nothing."""

    announced = False

    def __init__(self, kernel: Any) -> None:
        self.folder = kernel.stats.cache_path

    def on_start(self, _: Any) -> None:
        if not _Announcement.announced:
            _Announcement.announced = True
            kept = (
                f"later runs load them from {self.folder}" if self.folder else "no folder to keep them can be written"
            )
            _log.info("compiling CPU kernels for this machine, once, up to 15 seconds each; %s", kept)

    def on_end(self, _: Any) -> None:
        pass


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads beside the calling one. Tasks never wait for tasks, so calls from several threads share a pool."""
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads - 1, "fastreg-cpu")
    return _pools[threads]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def as_array(x: Tensor) -> np.ndarray:
    """The values of a CPU tensor as an array in C order, without a copy if it is contiguous.

    float16 and bfloat16 come as their 16 bits, int16; bool as uint8.
    """
    if x.requires_grad:
        x = x.detach()
    x = x.contiguous()
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.view(torch.int16)
    elif x.dtype == torch.bool:
        x = x.view(torch.uint8)
    array = x.numpy()
    return array if array.flags.aligned else array.copy()


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c in float32 with one rounding, as torch's loops on a CPU with AVX2 or NEON compute it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return (types.float32(a, b, c), generate) if a == b == c == types.float32 else None


@compiled
def to_bfloat16(out, at, values, count):
    """Round the first ``count`` float32 to the bits of bfloat16 (int16), to nearest even, into ``out[at:]``."""
    bits = values.view(np.uint32)
    for k in range(np.uint64(count)):
        b = bits[k]
        rounded = (b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        out[at + k] = np.int16(np.uint16(rounded if values[k] == values[k] else np.uint32(0x7FC0)))


@compiled
def to_float16(out, at, values, count):
    """Round the first ``count`` float32 to the bits of float16 (int16), to nearest even, into ``out[at:]``."""
    bits = values.view(np.uint32)
    for k in range(np.uint64(count)):
        sign = (bits[k] >> np.uint32(16)) & np.uint32(0x8000)
        b = bits[k] & np.uint32(0x7FFFFFFF)
        odd = (b >> np.uint32(13)) & np.uint32(1)
        half = (b - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)
        small = np.uint32(np.int32(np.rint(min(abs(values[k]), np.float32(1)) * np.float32(2**24))))  # 2**-24 each
        half = small if b < np.uint32(0x38800000) else half
        half = np.uint32(0x7C00) if b >= np.uint32(0x47800000) else half
        half = np.uint32(0x7E00) if b > np.uint32(0x7F800000) else half
        out[at + k] = np.int16(np.uint16(half | sign))
