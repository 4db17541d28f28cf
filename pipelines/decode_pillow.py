"""The `folder` decoder: Pillow in threads. Decoding and resampling release the GIL; the arithmetic is torchvision's."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from fastreg.pipelines import crop
from fastreg.pipelines.source import Source
from fastreg.pipelines.work import Decoded, Job, Pool, Settings, ahead, bad_image, cancel_all

# What a broken or hostile file makes Pillow raise.
ERRORS = (OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError, Image.DecompressionBombError)


def open_image(stored: bytes | np.ndarray) -> Image.Image:
    """A lazily decoded image: only the header is parsed. Raises one of ERRORS."""
    if isinstance(stored, np.ndarray):
        return Image.fromarray(stored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oddities of metadata, and large (not bomb-sized) images
        return Image.open(io.BytesIO(stored))


def train_image(image: Image.Image, box: np.ndarray, size: int) -> Image.Image:
    """torchvision's ``resized_crop``: crop to (top, left, height, width), then antialiased bilinear."""
    top, left, height, width = box.tolist()
    return (
        image.convert("RGB")
        .crop((left, top, left + width, top + height))
        .resize((size, size), Image.Resampling.BILINEAR)
    )


def eval_image(image: Image.Image, size: int, resize: float) -> Image.Image:
    """torchvision's Resize then CenterCrop: at 224 the shorter side goes to 256."""
    height, width = crop.resized(image.height, image.width, size, resize)
    top, left = crop.centre(height, width, size)
    return (
        image.convert("RGB")
        .resize((width, height), Image.Resampling.BILINEAR)
        .crop((left, top, left + size, top + size))
    )


def reason(error: BaseException) -> str:
    """One short clause for why Pillow refused a file."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image"
    return str(error).rstrip(".").split("\n")[0] or type(error).__name__


class PillowDecoder:
    """See ``work.Decoder``. A chunk of rows is one task: read, parse headers, draw boxes, decode, resize."""

    def __init__(self, source: Source, settings: Settings):
        self.source, self.settings = source, settings
        self.pool = Pool(settings.workers)

    def run(self, jobs: Iterator[Job]) -> Iterator[Decoded]:
        def start(job: Job):
            images = self.settings.buffer((len(job.indices), job.size, job.size, 3))
            rows = images.numpy()
            return images, self.pool.map_chunks(job, lambda job, a, b: self._chunk(job, a, rows[a:b]))

        for images, futures in ahead(jobs, start, 2, lambda started: cancel_all(started[1])):
            try:
                bad = tuple(row for future in futures for row in future.result())
            finally:
                cancel_all(futures)
            yield Decoded(images, None, bad)

    def _chunk(self, job: Job, first: int, out: np.ndarray) -> list[int]:
        """Fill ``out``; returns the rows (of the job) that could not be decoded."""
        indices, s = job.indices[first : first + len(out)], self.settings
        bad: list[int] = []
        images: list[Image.Image | None] = []
        for index in indices:
            try:
                images.append(open_image(self.source.read(index)))
            except ERRORS as error:
                bad_image(self.source, index, reason(error), s.on_bad_image)
                images.append(None)
        if s.train:
            sizes = np.array([image.size if image else (1, 1) for image in images])
            boxes = crop.random_boxes(s.seed, indices, job.epoch, sizes[:, 1], sizes[:, 0])
        for row, (index, image) in enumerate(zip(indices, images)):
            if image is None:
                bad.append(first + row)
                continue
            try:
                done = train_image(image, boxes[row], job.size) if s.train else eval_image(image, job.size, s.resize)
                out[row] = np.asarray(done)
            except ERRORS as error:
                bad_image(self.source, index, reason(error), s.on_bad_image)
                bad.append(first + row)
        return bad

    def close(self) -> None:
        self.pool.close()
