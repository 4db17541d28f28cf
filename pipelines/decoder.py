"""The types that a Loader and its decoder exchange, and the thread pool with look-ahead that the decoders share."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from fastreg.environment import granted_cpus
from fastreg.errors import InputError, RunError
from fastreg.kernels import philox
from fastreg.log import log
from fastreg.pipelines import crop
from fastreg.pipelines.source import Source

T = TypeVar("T")
U = TypeVar("U")


class BatchRequest(NamedTuple):
    """One micro-batch to decode."""

    epoch: int
    keys: np.ndarray  # int64 [b], of the draws: index + 2**32 occurrence
    size: int = 0  # output pixels per side
    resize: float = crop.RESIZE  # evaluation: shorter side after the resize, as a multiple of the crop's side

    @property
    def indices(self) -> np.ndarray:
        """The samples, int64 [b]."""
        return philox.split_keys(self.keys)[0]


class Decoded(NamedTuple):
    """One decoded micro-batch: images as in Batch, on the host or already on the device."""

    images: torch.Tensor  # uint8 [b, h, w, 3]
    crop: np.ndarray | None  # [b, 4] for augment, None: already cropped
    bad: tuple[int, ...] = ()  # rows that could not be decoded


class DecodeSettings(NamedTuple):
    """Settings of a decoder."""

    train: bool  # random crops; False: the evaluation protocol
    seed: int
    workers: int  # threads
    device: torch.device
    on_bad_image: str  # "error" or "skip"
    buffer: Callable[..., torch.Tensor]  # (shape) -> uint8 host tensor to fill
    shift: int = 4  # largest random shift of small arrays, in pixels
    interpolation: str = "bilinear"  # of the evaluation resize


class Decoder(Protocol):
    """Turns requests into images, in order, working ahead; holds no random state.

    Closing the generator of ``run`` cancels pending work and waits for work that cannot be canceled.
    """

    def run(self, requests: Iterator[BatchRequest]) -> Generator[Decoded]: ...

    def close(self) -> None: ...


def look_ahead(items: Iterable[T], start: Callable[[T], U], depth: int, cancel: Callable[[U], None]) -> Iterator[U]:
    """``start`` every item ``depth`` items before it is yielded; ``cancel`` the items that are never yielded."""
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


class DecodePool:
    """The threads of one loader: started with the first task, joined by ``close`` or when the loader is deleted."""

    def __init__(self, workers: int):
        self.workers = workers
        self._executor: ThreadPoolExecutor | None = None

    def map_chunks(
        self, request: BatchRequest, task: Callable[[BatchRequest, int, int], U], smallest: int = 4, largest: int = 32
    ) -> list:
        """Futures of ``task(request, start, stop)`` over chunks of the request's rows.

        A chunk has ``smallest`` to ``largest`` rows: enough to outweigh its dispatch, few enough that no thread waits
        for another. If there are rows for every thread, a chunk has at least 16, since boxes are cheaper to draw
        together.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix="fastreg-decode")
        n = len(request.keys)
        chunk = max(smallest, min(largest, n // self.workers, max(16, n // (2 * self.workers))))
        return [self._executor.submit(task, request, a, min(a + chunk, n)) for a in range(0, n, chunk)]

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None


def decode_in_threads(
    requests: Iterator[BatchRequest],
    settings: DecodeSettings,
    pool: DecodePool,
    task: Callable[[BatchRequest, int, np.ndarray], list[int]],
) -> Generator[Decoded]:
    """Decode batches whose rows are filled by ``task(request, first, out)``, which returns the rows that failed."""

    def start(request: BatchRequest) -> Any:
        images = settings.buffer((len(request.keys), request.size, request.size, 3))
        rows = images.numpy()
        return images, pool.map_chunks(request, lambda request, a, b: task(request, a, rows[a:b]))

    for images, futures in look_ahead(requests, start, 2, lambda started: cancel_all(started[1])):
        try:
            bad = tuple(row for future in futures for row in future.result())
        finally:
            cancel_all(futures)
        yield Decoded(images, None, bad)


def cancel_all(futures: Iterable) -> None:
    """Cancel pending futures and wait for running ones, so that no thread writes into a buffer that is reused."""
    for future in list(futures):
        if not future.cancel():
            future.exception()


def report_bad_image(source: Source, index: int, why: object, on_bad_image: str) -> None:
    """Raise RunError naming the sample; with ``on_bad_image="skip"`` log it instead."""
    message = f"cannot decode {source.describe(int(index))}: {why}"
    if on_bad_image != "skip":
        raise RunError(
            f"{message}; replace the file (`fastreg data verify` lists all broken files). Training and `fastreg data "
            "prepare` continue without it if `on_bad_image` is skip; an evaluation cannot."
        )
    log.warning("skipped: %s", message)


def worker_count(workers: int | None) -> int:
    """Decoding threads of this process: ``workers``, at most the usable cores; None: its share of the cores.

    In a container, the usable cores are those of its quota.
    """
    cores = granted_cpus()
    if workers is None:
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if workers < 1:
        raise InputError(f"`workers` is {workers}: give 1 or more.")
    if workers > cores:
        log.warning("%d workers are more than the %d cores this process may use: taking %d.", workers, cores, cores)
    return min(workers, cores)
