"""Capture of a function into a CUDA graph; a capture that fails leaves the stream and the memory as they were."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

WARM_UP = 3  # calls before the capture, in which libraries choose their algorithms


def capture(function: Callable[..., Any], *inputs: Any, warm_up: int = WARM_UP) -> tuple[Callable[[], None], Any]:
    """Capture ``function(*inputs)``.

    Args:
        function: the function to capture; it must not wait for the device.
        inputs: CUDA tensors. A replay reads their content at that time.
        warm_up: calls before the capture.

    Returns:
        ``(replay, output)``: each ``replay()`` writes into the memory of ``output``.

    Raises:
        Exception: any error of the capture. The previous stream is current again, and the memory of the capture is
            free again.
    """
    before = torch.cuda.current_stream()
    stream = torch.cuda.Stream()
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    stream.wait_stream(before)
    try:
        torch.cuda.set_stream(stream)
        for _ in range(warm_up):
            function(*inputs)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        # thread_local: another thread, such as a loader's that pins memory, does not disturb the capture
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            output = function(*inputs)
        except BaseException:
            with suppress(RuntimeError):  # it cannot end well; the first error is the one to raise
                graph.capture_end()
            raise
        graph.capture_end()
    except BaseException:
        _free(pool)
        raise
    finally:
        torch.cuda.set_stream(before)
    before.wait_stream(stream)
    return graph.replay, output


def _free(pool: Any) -> None:
    """Take the allocator out of a capture that failed, and free its memory.

    Where ``cudaStreamEndCapture`` fails, PyTorch's ``capture_end`` raises before it does so: later memory would be
    taken from the pool of the capture, and none would ever be freed.
    """
    device = torch.cuda.current_device()
    try:
        torch._C._cuda_endAllocateToPool(device, pool)
    except RuntimeError:
        return  # capture_end did it, or the capture had not begun
    with suppress(RuntimeError):
        torch._C._cuda_releasePool(device, pool)
