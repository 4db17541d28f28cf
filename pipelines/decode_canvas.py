"""Sets whose samples are stored as uint8 canvases of one size, or decoded once: a batch is a copy, `augment` crops."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice

import numpy as np
import torch

from fastreg.errors import InputError
from fastreg.pipelines import crop
from fastreg.pipelines.cifar import ArraySource
from fastreg.pipelines.decoder import Decoded, Decoder, Job, Pool, Settings, ahead, cancel_all
from fastreg.pipelines.source import Source


def untouched(source: Source, settings: Settings) -> bool:
    """Whether samples leave the loader as they are stored: canvases in training, small arrays always."""
    return source.canvas is not None and (settings.train or isinstance(source, ArraySource))


class CanvasDecoder:
    """Stored canvases of one size go out untouched, with the box that ``augment`` is to crop in training."""

    def __init__(self, source: Source, settings: Settings):
        self.source, self.settings = source, settings
        self.pool = Pool(settings.workers)

    def run(self, jobs: Iterator[Job]) -> Generator[Decoded]:
        height, width = self.source.canvas or (0, 0)

        def start(boxed: tuple[Job, np.ndarray | None]):
            job, boxes = boxed
            images = self.settings.buffer((len(job.indices), height, width, 3))
            rows = images.numpy()

            def copy(job: Job, a: int, b: int) -> None:
                self.source.gather(job.indices[a:b], rows[a:b])

            return images, boxes, self.pool.map_chunks(job, copy, smallest=16, largest=64)

        boxed = with_boxes(self.source, self.settings, jobs)
        # one batch ahead: a second would push the first out of the cache
        for images, boxes, futures in ahead(boxed, start, 1, lambda started: cancel_all(started[2])):
            try:
                for future in futures:
                    future.result()
            finally:
                cancel_all(futures)
            yield Decoded(images, boxes)

    def close(self) -> None:
        self.pool.close()


def with_boxes(source: Source, settings: Settings, jobs: Iterable[Job]) -> Iterator[tuple[Job, np.ndarray | None]]:
    """Each job of an epoch with its boxes over canvases of one size: CIFAR's shift or the random-resized crop; None in
    evaluation. Those of 32 jobs are drawn at once: a batch's few cost nearly as much, half of a small batch's time."""
    jobs = iter(jobs)
    while group := list(islice(jobs, 32)):
        if not settings.train or source.canvas is None:
            yield from ((job, None) for job in group)
            continue
        indices, epoch = np.concatenate([job.indices for job in group]), group[0].epoch
        if source.layout != "folder":  # 32-pixel arrays
            boxes = crop.shift_boxes(settings.seed, indices, epoch, source.canvas, settings.shift)
        else:
            sides = np.broadcast_to(np.asarray(source.canvas, np.int64), (len(indices), 2))
            boxes = crop.random_boxes(settings.seed, indices, epoch, sides[:, 0], sides[:, 1])
        yield from zip(group, np.split(boxes, np.cumsum([len(job.indices) for job in group[:-1]])))


class ResidentDecoder:
    """The set as one uint8 tensor in the device's memory; a batch is one gather.

    ``decoder`` brings it there once: canvases in training (and small arrays always) as they are stored, whatever else
    is evaluated decoded and cut, again when the size changes. In evaluation a rank keeps its own share.
    """

    def __init__(self, source: Source, settings: Settings, decoder: Decoder):
        self.source, self.settings, self.decoder = source, settings, decoder
        self._form: tuple[int, float] | None = None  # size and resize of what is held
        self._held, self._bad = np.empty(0, np.int64), np.empty(0, np.int64)  # indices
        self._images = torch.empty(0)

    def run(self, jobs: Iterator[Job]) -> Generator[Decoded]:
        todo = list(jobs)
        if not todo:
            return
        stored = untouched(self.source, self.settings)
        form = (0, 0.0) if stored else (todo[0].size, todo[0].resize)
        wanted = np.arange(len(self.source)) if stored else np.unique(np.concatenate([job.indices for job in todo]))
        if form != self._form or not np.isin(wanted, self._held).all():
            self._fill(wanted, todo[0])
            self._form = form
        for job, boxes in with_boxes(self.source, self.settings, todo):
            rows = torch.from_numpy(np.searchsorted(self._held, job.indices))
            if self.settings.device.type == "cuda":
                rows = rows.pin_memory().to(self.settings.device, non_blocking=True)
            bad = tuple(np.flatnonzero(np.isin(job.indices, self._bad)).tolist())
            yield Decoded(self._images.index_select(0, rows), boxes, bad)

    def _fill(self, wanted: np.ndarray, like: Job) -> None:
        self.close()
        if isinstance(self.source, ArraySource):
            self._held, self._images = wanted, torch.from_numpy(self.source.images).to(self.settings.device)
            return
        stored = self.source.canvas if untouched(self.source, self.settings) else None
        height, width = stored or (like.size, like.size)
        try:
            images = torch.empty((len(wanted), height, width, 3), dtype=torch.uint8, device=self.settings.device)
        except RuntimeError:
            size = len(wanted) * height * width * 3 / 1e9
            raise InputError(
                f"loader 'resident' needs {size:,.1f} GB of the memory of {self.settings.device} for the "
                f"{len(wanted):,} images of {self.source.root}, more than there is: use another --loader."
            ) from None
        parts = [like._replace(indices=wanted[a : a + 256]) for a in range(0, len(wanted), 256)]
        bad = []
        for part, room, done in zip(parts, images.split(256), self.decoder.run(iter(parts))):
            room.copy_(done.images)
            bad += part.indices[list(done.bad)].tolist()
        self.decoder.close()  # it has done its work
        self._held, self._images, self._bad = wanted, images, np.array(bad, np.int64)

    def close(self) -> None:
        self.decoder.close()
        self._form, self._images = None, torch.empty(0)


class SyntheticDecoder:
    """One batch of noise on the device, handed out again and again: what a step costs when data cost nothing."""

    def __init__(self, source: Source, settings: Settings):
        self.source, self.settings = source, settings
        self._images = torch.empty(0)

    def run(self, jobs: Iterator[Job]) -> Generator[Decoded]:
        stored = self.source.canvas if untouched(self.source, self.settings) else None
        for job, boxes in with_boxes(self.source, self.settings, jobs):
            height, width = stored or (job.size, job.size)
            shape = (len(job.indices), height, width, 3)
            if self._images.shape[1:] != shape[1:] or len(self._images) < shape[0]:
                self._images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.settings.device)
            yield Decoded(self._images[: shape[0]], boxes)

    def close(self) -> None:
        self._images = torch.empty(0)
