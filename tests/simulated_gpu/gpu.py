"""A simulated GPU: host code of CUDA routes runs on a machine without one.

Tensors on "cuda" are fake: shapes, strides and dtypes without memory. Each value that the host reads from them is 1.
Tensors on the host are real. The simulation

* refuses an operation on host and device memory together;
* records each wait of the host for the device, and each copy from memory that is not pinned;
* orders work by streams and events: an access that is not ordered after a write on another stream is an error, and so
  is the release of memory that another stream may still use;
* hands launches of Triton kernels to launcher.py, which checks and counts them.
"""

from __future__ import annotations

import itertools
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

DEVICE = torch.device("cuda", 0)
_COPIES = {aten._to_copy.default, aten.copy_.default}
# operations without a form for fake tensors; all change their arguments in place
_IN_PLACE = {
    aten._amp_foreach_non_finite_check_and_unscale_.default,
    aten._amp_update_scale_.default,
    aten._fused_sgd_.default,
    aten._fused_sgd_.tensor_lr,
    aten._fused_adam_.default,
    aten._fused_adam_.tensor_lr,
}

_OWN = tuple(str(Path(__file__).with_name(name)) for name in ("gpu.py", "runtime.py", "launcher.py"))
Clock = dict[int, int]  # the newest known operation of each stream


class GpuError(AssertionError):
    """What a GPU would answer with a wrong result, an illegal access or an exception."""


@dataclass(eq=False)
class Memory:
    """The accesses to one storage on the device, or to one pinned storage of the host."""

    alive: StorageWeakRef
    stream: int  # on which it was allocated
    written: tuple[int, int] | None = None  # stream and number of the operation
    used: Clock = field(default_factory=dict)
    recorded: set[int] = field(default_factory=set)  # streams of record_stream
    origin: str = ""
    pooled: bool = False  # of a graph, whose memory is freed with it
    foreign: bool = False  # not PyTorch's, so that PyTorch's record_stream does nothing


@dataclass
class Gpu(TorchDispatchMode):
    """The state of the device.

    Attributes:
        waits: where the host waited for the device, as "function: operation".
        pageable: where memory that is not pinned was copied.
        operations: PyTorch's operations on the device by name. On a real GPU most are one launch.
        launches: Triton's launches, filled by launcher.py.
        allocations: storages that the device allocated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.waits: list[str] = []
        self.pageable: list[str] = []
        self.operations: Counter[str] = Counter()
        self.launches: list[Any] = []
        self.allocations = 0
        self.pinned: dict[int, StorageWeakRef] = {}
        self.memory: dict[int, Memory] = {}
        self.host: Clock = {}  # what the host knows to be finished
        self.clocks: dict[int, Clock] = {0: {}}
        self.numbers: Counter[int] = Counter()
        self.streams = itertools.count(1)
        self.current = 0
        self.capturing = False
        self.requested: tuple[Any, ...] = ()
        self._only_lift = False

    def __enter__(self) -> Gpu:
        self._only_lift = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") as a copy from the host
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self._only_lift)

    # streams

    def enqueue(self, stream: int | None = None) -> tuple[int, int]:
        """Add an operation to a stream."""
        stream = self.current if stream is None else stream
        self.numbers[stream] += 1
        merge(self.clocks[stream], self.host)  # what the host has waited for is over
        self.clocks[stream][stream] = self.numbers[stream]
        return stream, self.numbers[stream]

    def join(self, stream: int, clock: Clock) -> None:
        """Let a stream wait for a clock."""
        merge(self.clocks[stream], clock)

    def wait(self, clock: Clock, reason: str) -> None:
        """Let the host wait for a clock."""
        if self.capturing:
            raise GpuError(f"operation not permitted when stream is capturing: {reason}")
        merge(self.host, clock)
        self.waits.append(f"{caller()}: {reason}")

    def finished(self, clock: Clock) -> bool:
        return all(self.host.get(stream, 0) >= number for stream, number in clock.items())

    # memory

    def on_device(self, t: Any) -> bool:
        return isinstance(t, FakeTensor) and t.fake_device.type == "cuda"

    def is_pinned(self, t: Tensor) -> bool:
        key = t.untyped_storage()._cdata
        return key in self.pinned and not self.pinned[key].expired()

    def pin(self, t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        self.pinned[storage._cdata] = StorageWeakRef(storage)
        self.memory.pop(storage._cdata, None)
        return t

    def touch(self, t: Tensor, at: tuple[int, int], write: bool, origin: str = "") -> None:
        """Note an access by an operation of a stream, and check that it comes after the last write."""
        storage = t.untyped_storage()
        stream, number = at
        known = self.memory.get(storage._cdata)
        if known is None or known.alive.expired():
            self.allocations += self.on_device(t)
            known = Memory(StorageWeakRef(storage), stream, origin=origin, pooled=self.capturing)
            self.memory[storage._cdata] = known
        clock = self.clocks[stream]
        if known.written and clock.get(known.written[0], 0) < known.written[1]:
            raise GpuError(f"{origin} on stream {stream} is not ordered after {known.origin} on {known.written[0]}")
        if write:
            for other, last in known.used.items():
                if clock.get(other, 0) < last:
                    raise GpuError(f"{origin} on stream {stream} overwrites what stream {other} may still read")
            known.written, known.origin = at, origin
        known.used[stream] = number

    def sweep(self) -> None:
        """Check memory that was released since the last sweep: its next owner must not meet its last user."""
        if len(self.clocks) == 1:
            return  # one stream keeps its own order
        for key, known in list(self.memory.items()):
            if not known.alive.expired():
                continue
            del self.memory[key]
            if known.pooled or key in self.pinned:
                continue  # the allocator of pinned memory notes an event after each copy
            clock = dict(self.clocks[known.stream])
            merge(clock, self.host)
            late = [s for s, n in known.used.items() if s not in known.recorded and clock.get(s, 0) < n]
            if late:
                raise GpuError(
                    f"memory of stream {known.stream} ({known.origin}) was released while stream {late[0]} may use it: "
                    "record_stream is missing"
                )

    def host_may_use(self, t: Tensor) -> bool:
        """Whether all copies from or to this host tensor are known to be finished."""
        known = self.memory.get(t.untyped_storage()._cdata)
        return known is None or known.alive.expired() or self.finished(known.used)

    # operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inputs = [leaf for leaf in leaves if self.on_device(leaf)]
        target = kwargs.get("device")
        to_device = target is not None and torch.device(target).type == "cuda"
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        if not inputs and not to_device:
            return self._on_host(func, args, kwargs)
        if to_device:
            kwargs["device"] = DEVICE
        return self._on_device(func, args, kwargs, leaves, inputs)

    def _on_host(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in (aten._pin_memory.default, aten.pin_memory.default):
            return self.pin(args[0].clone(memory_format=torch.contiguous_format))
        if func is aten.is_pinned.default:
            return self.is_pinned(args[0])
        pinned = kwargs.pop("pin_memory", False)
        out = func(*args, **kwargs)
        return self.pin(out) if pinned else out

    def _on_device(self, func: Any, args: Any, kwargs: Any, leaves: list[Tensor], inputs: list[Tensor]) -> Any:
        name = func.overloadpacket.__name__
        kwargs.pop("pin_memory", None)
        host = [t for t in leaves if not self.on_device(t)]
        if func in _COPIES and (host or torch.device(kwargs.get("device") or DEVICE).type == "cpu"):
            return self._transfer(func, args, kwargs, name)
        if _reads(func, args):
            self.wait(self.clocks[self.current], name)
            if func is aten._local_scalar_dense.default:
                return torch.ones((), dtype=args[0].dtype).item()
            if str(func._schema.returns[0].type) == "bool":
                return True
            raise GpuError(f"{name}: the size of the result depends on values")
        if func is aten.record_stream.default:
            return None
        if any(t.dim() for t in host):
            raise GpuError(f"{name} works on memory of the host and of the device")
        self.sweep()
        if func in _IN_PLACE:
            out = None
        else:
            with self.fake:
                out = func(*args, **kwargs)
        views = {t.untyped_storage()._cdata for t in inputs} if not func._schema.is_mutable else set()
        produced = [t for t in tree_leaves(out) if self.on_device(t)]
        if produced and all(t.untyped_storage()._cdata in views for t in produced):
            return out  # a view is no operation of the device
        at = self.enqueue()
        self.operations[name] += 1
        changed = _written(func, args, kwargs)
        for t in inputs:
            self.touch(t, at, any(t is c for c in changed), name)
        for t in produced:
            self.touch(t, at, True, name)
        return out

    def _transfer(self, func: Any, args: Any, kwargs: Any, name: str) -> Any:
        """A copy between host and device."""
        self.sweep()
        at = self.enqueue()
        self.operations["copy"] += 1
        blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        source = args[1] if func is aten.copy_.default else args[0]
        if func is aten.copy_.default:
            out = args[0]
            assert out.shape == torch.broadcast_shapes(out.shape, source.shape)
        elif self.on_device(source):
            out = torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        else:
            out = self.empty_like(source, kwargs.get("dtype"), kwargs.get("memory_format"))
        host = out if self.on_device(source) else source
        self.touch(source, at, False, name)
        self.touch(out, at, True, name)
        if not self.is_pinned(host) and host.numel():
            if host.dim():
                self.pageable.append(f"{caller()}: {list(host.shape)}")
            blocking |= self.on_device(source)
        if blocking and self.on_device(source):
            self.wait(self.clocks[self.current], "a copy to the host")
        elif blocking:
            merge(self.host, self.clocks[self.current])  # the host waits for this copy, and so for this stream
        if blocking and self.is_pinned(host) and not self.on_device(source):
            self.waits.append(f"{caller()}: a copy to the device")
        return out

    def empty_like(self, source: Tensor, dtype: torch.dtype | None, memory_format: Any = None) -> Tensor:
        """A fake tensor with the layout of a host tensor, of which PyTorch's converter would keep a reference."""
        meta = torch.empty_like(
            torch.empty_strided(source.shape, source.stride(), dtype=dtype or source.dtype, device="meta"),
            memory_format=memory_format or torch.preserve_format,
        )
        return FakeTensor(self.fake, meta, DEVICE)


def merge(clock: Clock, other: Clock) -> None:
    for stream, number in other.items():
        clock[stream] = max(clock.get(stream, 0), number)


def caller() -> str:
    """The function of fastreg or of a test that led here."""
    for frame in reversed(traceback.extract_stack()[:-2]):
        if not frame.filename.startswith(_OWN) and "/site-packages/" not in frame.filename:
            return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}"
    return "?"


def _reads(func: Any, args: Any) -> bool:
    """Whether the host reads a value of the device, or a size that depends on values."""
    if func is aten.index.Tensor:
        return any(_is_mask(index) for index in args[1] if index is not None)
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation changes."""
    named = [
        *zip(func._schema.arguments, args),
        *((a, kwargs[a.name]) for a in func._schema.arguments if a.name in kwargs),
    ]
    changed = [value for argument, value in named if argument.alias_info and argument.alias_info.is_write]
    return [t for t in tree_leaves(changed) if isinstance(t, Tensor)]
