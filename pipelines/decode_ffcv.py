"""The `ffcv` decoder: the C routines of the real FFCV 1.0.2 (libjpeg-turbo and area resampling) on `.beton` bytes.

FFCV's own loader draws unseeded crops, ignores libjpeg's answer and leaks a thread per epoch; here its routines run in
fastreg's threads (ctypes releases the GIL), on fastreg's boxes, and a refused JPEG is an error that names the sample.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch

from fastreg.errors import InputError, extra
from fastreg.pipelines import crop
from fastreg.pipelines.beton import BetonSource
from fastreg.pipelines.decoder import Decoded, Job, Pool, Settings, bad_image, in_threads
from fastreg.pipelines.image import ERRORS, pixels, reason
from fastreg.pipelines.source import Source


def library() -> Any:
    """FFCV's C routines. Raises InputError saying how to install them."""
    threads = torch.get_num_threads()
    try:
        import ffcv.libffcv as routines
    except (ImportError, OSError) as error:
        raise InputError(
            f"loader 'ffcv' needs FFCV ({error}): apt-get install build-essential pkg-config python3-dev libopencv-dev "
            f"libturbojpeg0-dev, then {extra('ffcv')}."
        ) from None
    finally:
        torch.set_num_threads(threads)  # importing FFCV sets them to one, for the whole process
    return routines


class FfcvDecoder:
    """See ``work.Decoder``. Needs a ``.beton`` source; decodes whole images, then crops and resizes by area."""

    def __init__(self, source: Source, settings: Settings):
        if not isinstance(source, BetonSource):
            raise InputError(
                f"loader 'ffcv' reads .beton files, and {source.root} is a folder: make one with "
                f"`fastreg data prepare`, or use --loader folder."
            )
        self.routines = library()
        self.source, self.settings = source, settings
        self.pool = Pool(settings.workers)
        self._local = threading.local()

    def run(self, jobs: Iterator[Job]) -> Generator[Decoded]:
        return in_threads(jobs, self.settings, self.pool, self._chunk)

    def _chunk(self, job: Job, first: int, out: np.ndarray) -> list[int]:
        indices, s = job.indices[first : first + len(out)], self.settings
        heights, widths = self.source.heights[indices], self.source.widths[indices]
        if s.train:
            boxes = crop.random_boxes(s.seed, indices, job.epoch, heights, widths)
        else:
            boxes = np.array([crop.centre_box(h, w, job.size, job.resize) for h, w in zip(heights, widths)])
        bad = []
        for row, index in enumerate(indices.tolist()):
            try:
                array = self._pixels(index)
            except ERRORS as error:
                bad_image(self.source, index, reason(error), s.on_bad_image)
                bad.append(first + row)
                continue
            top, left, height, width = boxes[row].tolist()
            self.routines.resize_crop(array, top, top + height, left, left + width, out[row])
        return bad

    def _pixels(self, index: int) -> np.ndarray:
        """The whole image, uint8 [H, W, 3], valid until this thread's next call. Raises one of ERRORS.

        FFCV refuses whatever libjpeg as much as warns about; what it refuses Pillow judges.
        """
        stored = self.source.read(index)
        if isinstance(stored, np.ndarray):
            return stored
        height, width = int(self.source.heights[index]), int(self.source.widths[index])
        size = height * width * 3
        if getattr(self._local, "room", 0) < size:
            self._local.buffer, self._local.room = np.empty(size, np.uint8), size
        array = self._local.buffer[:size].reshape(height, width, 3)
        failed = self.routines.imdecode(np.frombuffer(stored, np.uint8), array, height, width, height, width)
        return pixels(stored, plain=False) if failed else array

    def close(self) -> None:
        self.pool.close()
