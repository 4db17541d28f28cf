"""torch.cuda of the simulated GPU: streams, events, pinned memory and graph capture, with their order checked."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from tests.simulated_gpu import launcher
from tests.simulated_gpu.gpu import Gpu, GpuError, merge
from tests.simulated_gpu.guard import load


def _stream_class(gpu: Gpu) -> type:
    class Stream:
        def __init__(self, device: Any = None, number: int | None = None) -> None:
            self.number = next(gpu.streams) if number is None else number
            gpu.clocks.setdefault(self.number, {})

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Stream) and other.number == self.number

        def __hash__(self) -> int:
            return self.number

        def wait_stream(self, other: Any) -> None:
            gpu.join(self.number, gpu.clocks[other.number])

        def wait_event(self, event: Any) -> None:
            gpu.join(self.number, event.clock)

        def record_event(self, event: Any = None) -> Any:
            event = event or torch.cuda.Event()
            event.record(self)
            return event

        def synchronize(self) -> None:
            gpu.wait(gpu.clocks[self.number], "stream.synchronize")

        def query(self) -> bool:
            return gpu.finished(gpu.clocks[self.number])

        cuda_stream = property(lambda self: self.number)

    return Stream


def _event_class(gpu: Gpu) -> type:
    class Event:
        def __init__(self, **options: Any) -> None:
            self.clock: dict[int, int] = {}

        def record(self, stream: Any = None) -> None:
            self.clock = dict(gpu.clocks[gpu.current if stream is None else stream.number])

        def wait(self, stream: Any = None) -> None:
            gpu.join(gpu.current if stream is None else stream.number, self.clock)

        def synchronize(self) -> None:
            if not gpu.finished(self.clock):
                gpu.wait(self.clock, "event.synchronize")

        def query(self) -> bool:
            return gpu.finished(self.clock)

        def elapsed_time(self, other: Any) -> float:
            return 1.0

    return Event


def _graph_class(gpu: Gpu) -> type:
    class Graph:
        def __init__(self, **options: Any) -> None:
            self.numbers: list[int] = []

        def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
            if gpu.current == 0:
                raise GpuError("CUDA graphs must be captured on a stream that is not the default one")
            self.launches = len(gpu.launches)
            gpu.capturing = True

        def capture_end(self) -> None:
            gpu.capturing = False
            merge(gpu.host, gpu.clocks[gpu.current])  # what was captured did not run
            self.captured = gpu.launches[self.launches :]

        def replay(self) -> None:
            gpu.enqueue()
            gpu.operations["replay"] += 1

    return Graph


@contextlib.contextmanager
def simulated_gpu(patch: Any, *, compiles: bool = False, capability: tuple[int, int] = (9, 0)) -> Iterator[Gpu]:
    """Inside, "cuda" is a simulated GPU.

    Args:
        patch: pytest's monkeypatch; its changes stay until the test ends.
        compiles: whether to compile each new kernel specialization to PTX.
        capability: compute capability of the device.
    """
    hooks = load().hooks
    gpu = Gpu()
    stream_class, event_class = _stream_class(gpu), _event_class(gpu)
    properties = types.SimpleNamespace(
        name="Simulated GPU", total_memory=80 * 10**9, multi_processor_count=132, major=capability[0],
        minor=capability[1], L2_cache_size=50 * 2**20, warp_size=32, max_threads_per_multi_processor=2048,
    )  # fmt: skip

    @contextlib.contextmanager
    def on(stream: Any) -> Iterator[None]:
        before = gpu.current
        gpu.current = before if stream is None else stream.number
        try:
            yield
        finally:
            gpu.current = before

    def set_stream(stream: Any) -> None:
        gpu.current = stream.number

    def record_stream(t: Any, stream: Any) -> None:
        known = gpu.memory.get(t.untyped_storage()._cdata)
        if known is not None and not known.foreign:
            known.recorded.add(stream.number)

    def reads_host(name: str) -> Callable[..., Any]:
        honest = getattr(torch.Tensor, name)

        def read(t: Any, *args: Any, **options: Any) -> Any:
            if not isinstance(t, FakeTensor) and not gpu.host_may_use(t):
                raise GpuError(f"{name} of host memory whose copy may still run")
            if name == "tolist" and gpu.on_device(t):
                gpu.wait(gpu.clocks[gpu.current], name)
                return torch.ones(t.shape, dtype=t.dtype, device="cpu").tolist()
            return honest(t, *args, **options)

        return read

    values: dict[str, Any] = {
        "_lazy_init": lambda: None, "is_available": lambda: True, "is_initialized": lambda: True,
        "device_count": lambda: 1, "current_device": lambda: 0, "set_device": _set_device,
        "get_device_capability": lambda device=None: capability, "get_device_name": lambda device=None: properties.name,
        "get_device_properties": lambda device=None: properties, "mem_get_info": lambda device=None: (70 * 10**9,) * 2,
        "Stream": stream_class, "Event": event_class, "stream": on, "set_stream": set_stream,
        "current_stream": lambda device=None: stream_class(number=gpu.current),
        "default_stream": lambda device=None: stream_class(number=0),
        "synchronize": lambda device=None: gpu.wait(dict(gpu.numbers), "synchronize"),
        "empty_cache": lambda: None, "is_current_stream_capturing": lambda: gpu.capturing,
        "CUDAGraph": _graph_class(gpu), "graph_pool_handle": lambda: (0, 1), "is_bf16_supported": lambda *a, **k: True,
        "max_memory_allocated": lambda device=None: 0, "reset_peak_memory_stats": lambda device=None: None,
        "memory_allocated": lambda device=None: 0, "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None, "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
    }  # fmt: skip
    for name, value in values.items():
        patch.setattr(torch.cuda, name, value)
    patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    patch.setattr(torch.Tensor, "record_stream", record_stream)
    for name in ("tolist", "numpy"):
        patch.setattr(torch.Tensor, name, reads_host(name))
    patch.setattr(FakeTensor, "data_ptr", launcher.data_ptr)
    patch.setattr(torch.utils, "swap_tensors", _set_data)
    launcher.install(patch, gpu, compiles)
    hooks(1)
    try:
        with gpu:
            yield gpu
            gpu.sweep()
    finally:
        hooks(0)


def _set_device(device: Any) -> None:
    if isinstance(device, torch.device) and device.index is None:
        raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")


def _set_data(parameter: Any, moved: Any) -> None:
    """Module.to of fake parameters, as it is of real ones; PyTorch would exchange the Python objects."""
    parameter.data = moved.data
