"""The `folder` decoder: threads that release the GIL; the arithmetic is torchvision's on Pillow images."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fastreg.pipelines import crop
from fastreg.pipelines.decoder import Decoded, Job, Pool, Settings, bad_image, in_threads
from fastreg.pipelines.image import ERRORS, Header, header, pixels, reason
from fastreg.pipelines.source import Source


def train_crop(array: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """torchvision's ``resized_crop``: cut (top, left, height, width), then antialiased bilinear on 8 bits.

    torch's 8-bit resampling is Pillow's with 16-bit weights: about one value in a hundred differs, by one.
    """
    top, left, height, width = box.tolist()
    cut = torch.from_numpy(np.array(array[top : top + height, left : left + width], order="C"))[None]
    done = F.interpolate(cut.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True)
    return done.permute(0, 2, 3, 1)[0].numpy()  # channels last throughout: no copy but the cut


def eval_crop(array: np.ndarray, size: int, resize: float) -> np.ndarray:
    """torchvision's Resize then CenterCrop with Pillow's own resampling: at 224 the shorter side goes to 256."""
    height, width = crop.resized(array.shape[0], array.shape[1], size, resize)
    top, left = crop.centre(height, width, size)
    image = Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + size, top + size)))


class PillowDecoder:
    """See ``work.Decoder``. A chunk of rows is one task: read, parse headers, draw boxes, decode, resize."""

    def __init__(self, source: Source, settings: Settings):
        self.source, self.settings = source, settings
        self.pool = Pool(settings.workers)

    def run(self, jobs: Iterator[Job]) -> Generator[Decoded]:
        return in_threads(jobs, self.settings, self.pool, self._chunk)

    def _chunk(self, job: Job, first: int, out: np.ndarray) -> list[int]:
        """Fill ``out``; returns the rows (of the job) that could not be decoded."""
        indices, s = job.indices[first : first + len(out)], self.settings
        bad: list[int] = []
        files: list[tuple[bytes | np.ndarray, Header | None]] = []
        for index in indices:
            try:
                stored = self.source.read(index)
                files.append((stored, header(stored)))
            except ERRORS as error:
                bad_image(self.source, index, reason(error), s.on_bad_image)
                files.append((b"", None))
        if s.train:
            sizes = np.array([head[:2] if head else (1, 1) for _, head in files])
            boxes = crop.random_boxes(s.seed, indices, job.epoch, sizes[:, 0], sizes[:, 1])
        for row, (index, (stored, head)) in enumerate(zip(indices, files)):
            if head is None:
                bad.append(first + row)
                continue
            try:
                array = pixels(stored, head.plain)
                if s.train:
                    out[row] = train_crop(array, boxes[row], job.size)
                else:
                    out[row] = eval_crop(array, job.size, job.resize)
            except ERRORS as error:
                bad_image(self.source, index, reason(error), s.on_bad_image)
                bad.append(first + row)
        return bad

    def close(self) -> None:
        self.pool.close()
