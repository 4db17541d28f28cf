"""What passes between a Loader and its decoder, and the look-ahead that both use."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from fastreg.errors import InputError, RunError
from fastreg.pipelines import crop
from fastreg.pipelines.source import Source

log = logging.getLogger("fastreg")

T = TypeVar("T")
U = TypeVar("U")


class Job(NamedTuple):
    """One micro-batch to decode."""

    epoch: int
    indices: np.ndarray  # int64 [b]
    size: int = 0  # output pixels per side
    resize: float = crop.RESIZE  # evaluation: the shorter side before the centre crop, over the crop's side


class Decoded(NamedTuple):
    """A decoder's answer: images as in Batch, on the host or already on the device."""

    images: torch.Tensor  # uint8 [b, h, w, 3]
    crop: np.ndarray | None  # [b, 4] for augment, None: already cropped
    bad: tuple[int, ...] = ()  # rows to leave out: samples that could not be decoded


class Settings(NamedTuple):
    """What every decoder needs to know beside its source."""

    train: bool  # random crops; False: the evaluation protocol
    seed: int
    workers: int
    device: torch.device
    on_bad_image: str
    buffer: Callable[..., torch.Tensor]  # (shape) -> uint8 host tensor to fill
    shift: int = 4  # pixels by which small arrays move at random


class Decoder(Protocol):
    """Turns jobs into images, in order, working ahead; keeps no random state.

    Closing the generator of ``run`` drops what was begun and waits for what cannot be dropped.
    """

    def run(self, jobs: Iterator[Job]) -> Generator[Decoded]: ...

    def close(self) -> None: ...


def ahead(items: Iterable[T], start: Callable[[T], U], depth: int, cancel: Callable[[U], None]) -> Iterator[U]:
    """``start`` every item ``depth`` items before it is yielded; what was started but not yielded is cancelled."""
    pending: deque[U] = deque()
    try:
        for item in items:
            pending.append(start(item))
            if len(pending) > depth:
                yield pending.popleft()
        while pending:
            yield pending.popleft()
    finally:
        for started in pending:
            cancel(started)


class Pool:
    """Threads of one loader: started at the first task, joined by ``close`` or with the loader's last reference."""

    def __init__(self, workers: int):
        self.workers = workers
        self._executor: ThreadPoolExecutor | None = None

    def map_chunks(self, job: Job, task: Callable[[Job, int, int], U], smallest: int = 4, largest: int = 32) -> list:
        """Futures of ``task(job, start, stop)`` over the rows of a job: some per thread, of ``smallest`` to ``largest``
        rows, so that a task is worth its dispatch and none keeps the others waiting. Where there are rows for every
        thread a task has 16, so that drawing its boxes together is worth it."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix="fastreg-decode")
        n = len(job.indices)
        chunk = max(smallest, min(largest, n // self.workers, max(16, n // (2 * self.workers))))
        return [self._executor.submit(task, job, a, min(a + chunk, n)) for a in range(0, n, chunk)]

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None


def in_threads(
    jobs: Iterator[Job], settings: Settings, pool: Pool, task: Callable[[Job, int, np.ndarray], list[int]]
) -> Generator[Decoded]:
    """Batches whose rows ``task(job, first, out)`` fills; it returns the rows (of the job) that it could not."""

    def start(job: Job):
        images = settings.buffer((len(job.indices), job.size, job.size, 3))
        rows = images.numpy()
        return images, pool.map_chunks(job, lambda job, a, b: task(job, a, rows[a:b]))

    for images, futures in ahead(jobs, start, 2, lambda started: cancel_all(started[1])):
        try:
            bad = tuple(row for future in futures for row in future.result())
        finally:
            cancel_all(futures)
        yield Decoded(images, None, bad)


def cancel_all(futures: Iterable) -> None:
    """Cancel what has not begun and wait for what has, so that no thread writes into a buffer given back."""
    for future in list(futures):
        if not future.cancel():
            future.exception()


def bad_image(source: Source, index: int, why: object, on_bad_image: str) -> None:
    """Raise RunError naming the sample, or name it in the log when bad images are skipped."""
    message = f"cannot decode {source.describe(int(index))}: {why}"
    if on_bad_image != "skip":
        raise RunError(
            f"{message}; replace the file (`fastreg data verify` lists all such). Training and `fastreg data prepare` "
            "can go on without it, an evaluation cannot: --on-bad-image skip."
        )
    log.warning("skipped: %s", message)


def default_workers(workers: int | None) -> int:
    """Decoding threads of this process: its share of the cores it may use, or as asked but not above the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers is None:
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if workers < 1:
        raise InputError(f"--workers {workers}: it must be 1 or more.")
    if workers > cores:
        log.warning("--workers %d is more than the %d cores this process may use: taking %d.", workers, cores, cores)
    return min(workers, cores)
