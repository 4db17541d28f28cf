"""The ``ffcv`` loader: the C routines of FFCV 1.0.2 (libjpeg-turbo and area resampling) on ``.beton`` bytes.

FFCV's own loader draws unseeded crops, ignores libjpeg's return code and leaks a thread per epoch. Here its routines
run in fastreg's threads (ctypes releases the GIL) and decode fastreg's boxes. A refused JPEG is an error that names the
sample.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch

from fastreg.errors import InputError
from fastreg.pipelines import crop
from fastreg.pipelines.beton import BetonSource
from fastreg.pipelines.decode_pillow import folder_decoder
from fastreg.pipelines.decoder import (
    BatchRequest,
    Decoded,
    DecodePool,
    Decoder,
    DecodeSettings,
    decode_in_threads,
    report_bad_image,
)
from fastreg.pipelines.image import ERRORS, pixels, reason
from fastreg.pipelines.loader_table import LOADERS
from fastreg.pipelines.source import Source
from fastreg.pipelines.subset import Subset


def ffcv_decoder(source: Source, settings: DecodeSettings) -> Decoder:
    """The decoder of the ``ffcv`` loader: canvases need no FFCV."""
    return folder_decoder(source, settings) if source.form == "canvases" else FfcvDecoder(source, settings)


def library() -> Any:
    """FFCV's C routines. Raises InputError, with the command that installs them, if they are missing."""
    threads = torch.get_num_threads()
    try:
        import ffcv.libffcv as routines
    except (ImportError, OSError) as error:
        raise InputError(f"`loader` 'ffcv' needs FFCV ({error}): {LOADERS['ffcv'].install_command()}.") from None
    finally:
        torch.set_num_threads(threads)  # importing FFCV sets it to one for the whole process
    return routines


class FfcvDecoder:
    """A ``Decoder`` of ``.beton`` sources: decodes whole images, then crops and resizes by area averaging."""

    def __init__(self, source: Source, settings: DecodeSettings):
        if not isinstance(source, BetonSource | Subset) or source.form != "beton":
            kind = f"{type(source).__name__} of {source.form}"
            raise TypeError(f"FfcvDecoder needs a .beton source of encoded images, not a {kind}")
        self.routines = library()
        self.source: Any = source
        self.settings = settings
        self.pool = DecodePool(settings.workers)
        self._local = threading.local()

    def run(self, requests: Iterator[BatchRequest]) -> Generator[Decoded]:
        return decode_in_threads(requests, self.settings, self.pool, self._chunk)

    def _chunk(self, request: BatchRequest, first: int, out: np.ndarray) -> list[int]:
        rows, s = slice(first, first + len(out)), self.settings
        indices = request.indices[rows]
        heights, widths = self.source.heights[indices], self.source.widths[indices]
        if s.train:
            boxes = crop.random_boxes(s.seed, request.keys[rows], request.epoch, heights, widths)
        else:
            boxes = np.array([crop.center_box(h, w, request.size, request.resize) for h, w in zip(heights, widths)])
        bad = []
        for row, index in enumerate(indices.tolist()):
            try:
                array = self._pixels(index)
            except ERRORS as error:
                report_bad_image(self.source, index, reason(error), s.on_bad_image)
                bad.append(first + row)
                continue
            top, left, height, width = boxes[row].tolist()
            self.routines.resize_crop(array, top, top + height, left, left + width, out[row])
        return bad

    def _pixels(self, index: int) -> np.ndarray:
        """The whole image, uint8 [H, W, 3], valid until this thread's next call. Raises one of ERRORS.

        FFCV refuses every file that libjpeg warns about; Pillow then decodes or refuses it.
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
