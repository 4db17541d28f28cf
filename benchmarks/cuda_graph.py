"""Capture calls into a CUDA graph; a capture that fails leaves no trace in streams or in the memory allocator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

WARM_UP = 3


def warm_up(function: Callable[[], Any], calls: int = WARM_UP) -> None:
    """Call ``function`` on a side stream, so that kernels are compiled and algorithms chosen before a capture."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(calls):
            function()
    torch.cuda.current_stream().wait_stream(side)


def capture(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Capture one call into a CUDA graph.

    Args:
        function: what to capture; :func:`warm_up` has called it.

    Returns:
        ``(replay, result)``: ``replay()`` runs the captured kernels again, which write into ``result``.

    Raises:
        Exception: whatever ``function`` raises, or torch, where the call cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    with _capturing(graph):
        result = function()
    return graph.replay, result


@contextlib.contextmanager
def _capturing(graph: torch.cuda.CUDAGraph) -> Iterator[None]:
    """``torch.cuda.graph`` with the clean-up that it lacks.

    Its exit ends the capture before it restores the stream. Where that raises, the capture stream stays current, and
    releases of torch before the fix of 2026 go on allocating from the graph's pool, which is then never freed.
    """
    stream, pool = torch.cuda.current_stream(), torch.cuda.graph_pool_handle()
    try:
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            yield
    except BaseException:
        torch.cuda.set_stream(stream)
        device = torch.cuda.current_device()
        with contextlib.suppress(RuntimeError):  # raises where torch has left the pool already
            torch._C._cuda_endAllocateToPool(device, pool)
            torch._C._cuda_releasePool(device, pool)
        with contextlib.suppress(RuntimeError):  # a CUDA error of the call itself is raised below
            torch.cuda.synchronize()
        raise
