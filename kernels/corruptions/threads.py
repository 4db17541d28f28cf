"""Chunks of a CPU batch on as many threads as PyTorch uses, each with PyTorch and OpenCV on that thread alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
U = TypeVar("U")


def map_chunks(call: Callable[[T], U], chunks: Sequence[T], on_cpu: bool) -> list[U]:
    """``call`` of every chunk, in order; on the CPU in parallel, if there are several chunks and threads."""
    threads = min(torch.get_num_threads(), len(chunks)) if on_cpu else 1
    if threads <= 1:
        return [call(chunk) for chunk in chunks]
    with _one_thread_each(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(call, chunks))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Restore the number of threads of PyTorch and OpenCV, which are numbers of the process, too."""
    import cv2

    before = torch.get_num_threads(), cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
