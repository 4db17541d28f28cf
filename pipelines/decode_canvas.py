"""Sets whose samples are stored as uint8 canvases of one size: nothing is decoded, `augment` crops."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch

from fastreg.pipelines import crop
from fastreg.pipelines.source import Source
from fastreg.pipelines.work import Decoded, Job, Pool, Settings, ahead, cancel_all


class CanvasDecoder:
    """Stored canvases of one size go out untouched, with the box that ``augment`` is to crop in training."""

    def __init__(self, source: Source, settings: Settings):
        self.source, self.settings = source, settings
        self.pool = Pool(settings.workers)

    def run(self, jobs: Iterator[Job]) -> Generator[Decoded]:
        height, width = self.source.canvas or (0, 0)

        def start(job: Job):
            images = self.settings.buffer((len(job.indices), height, width, 3))
            rows = images.numpy()

            def copy(job: Job, a: int, b: int) -> np.ndarray | None:
                for row in range(a, b):
                    rows[row] = self.source.read(job.indices[row])
                return canvas_boxes(self.source, self.settings, job) if a == 0 else None

            return images, self.pool.map_chunks(job, copy, smallest=16, largest=64)

        for images, futures in ahead(jobs, start, 2, lambda started: cancel_all(started[1])):
            try:
                boxes, *_ = [future.result() for future in futures]
            finally:
                cancel_all(futures)
            yield Decoded(images, boxes)

    def close(self) -> None:
        self.pool.close()


def canvas_boxes(source: Source, settings: Settings, job: Job) -> np.ndarray | None:
    """Boxes of a job over canvases of one size: CIFAR's shift or the random-resized crop; None in evaluation."""
    if not settings.train or source.canvas is None:
        return None
    if source.layout != "folder":  # 32-pixel arrays
        return crop.shift_boxes(settings.seed, job.indices, job.epoch, source.canvas)
    sides = np.broadcast_to(np.asarray(source.canvas, np.int64), (len(job.indices), 2))
    return crop.random_boxes(settings.seed, job.indices, job.epoch, sides[:, 0], sides[:, 1])


class ResidentDecoder:
    """The whole set as one uint8 tensor in the device's memory; a batch is one gather."""

    def __init__(self, source: Source, settings: Settings):
        self.source, self.settings = source, settings
        self._images: torch.Tensor | None = None

    def run(self, jobs: Iterator[Job]) -> Generator[Decoded]:
        if self._images is None:
            images = getattr(self.source, "images", None)
            if images is None:
                images = np.stack([self.source.read(i) for i in range(len(self.source))])
            self._images = torch.from_numpy(images).to(self.settings.device)
        for job in jobs:
            rows = torch.from_numpy(job.indices)
            if self.settings.device.type == "cuda":
                rows = rows.pin_memory().to(self.settings.device, non_blocking=True)
            yield Decoded(self._images.index_select(0, rows), canvas_boxes(self.source, self.settings, job))

    def close(self) -> None:
        self._images = None


class SyntheticDecoder:
    """One batch of noise on the device, handed out again and again: what a step costs when data cost nothing."""

    def __init__(self, source: Source, settings: Settings):
        self.source, self.settings = source, settings
        self._images = torch.empty(0)

    def run(self, jobs: Iterator[Job]) -> Generator[Decoded]:
        for job in jobs:
            height, width = self.source.canvas or (job.size, job.size)
            shape = (len(job.indices), height, width, 3)
            if self._images.shape[1:] != shape[1:] or len(self._images) < shape[0]:
                self._images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.settings.device)
            yield Decoded(self._images[: shape[0]], canvas_boxes(self.source, self.settings, job))

    def close(self) -> None:
        self._images = torch.empty(0)
