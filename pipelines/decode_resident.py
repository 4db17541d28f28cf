"""The ``resident`` loader: the whole set as one uint8 tensor in the device's memory; a batch is one gather."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch

from fastreg.errors import InputError
from fastreg.pipelines.cifar import ArraySource
from fastreg.pipelines.decode_canvas import stays_as_stored, with_boxes
from fastreg.pipelines.decode_pillow import folder_decoder
from fastreg.pipelines.decoder import BatchRequest, Decoded, DecodeSettings
from fastreg.pipelines.source import Source


class ResidentDecoder:
    """A ``Decoder`` over images that the ``folder`` decoder copied to the device once.

    Canvases in training, and small arrays always, stay as stored. Any other set is for evaluation only: this rank's
    share is kept decoded and cropped, and decoded again if the size changes.
    """

    def __init__(self, source: Source, settings: DecodeSettings):
        self.source, self.settings = source, settings
        self.decoder = folder_decoder(source, settings)
        self._form: tuple[int, float] | None = None  # size and resize of the resident images
        self._resident, self._bad = np.empty(0, np.int64), np.empty(0, np.int64)  # indices
        self._images = torch.empty(0)

    def run(self, requests: Iterator[BatchRequest]) -> Generator[Decoded]:
        todo = list(requests)
        if not todo:
            return
        as_stored = stays_as_stored(self.source, self.settings)
        form = (0, 0.0) if as_stored else (todo[0].size, todo[0].resize)
        if as_stored:
            wanted = np.arange(len(self.source))
        else:
            wanted = np.unique(np.concatenate([request.indices for request in todo]))
        if form != self._form or not np.isin(wanted, self._resident).all():
            self._fill(wanted, todo[0])
            self._form = form
        for request, boxes in with_boxes(self.source, self.settings, todo):
            rows = torch.from_numpy(np.searchsorted(self._resident, request.indices))
            if self.settings.device.type == "cuda":
                rows = rows.pin_memory().to(self.settings.device, non_blocking=True)
            bad = tuple(np.flatnonzero(np.isin(request.indices, self._bad)).tolist())
            yield Decoded(self._images.index_select(0, rows), boxes, bad)

    def _fill(self, wanted: np.ndarray, like: BatchRequest) -> None:
        self.close()
        if isinstance(self.source, ArraySource):
            self._resident, self._images = wanted, torch.from_numpy(self.source.images).to(self.settings.device)
            return
        canvas = self.source.canvas if stays_as_stored(self.source, self.settings) else None
        height, width = canvas or (like.size, like.size)
        try:
            images = torch.empty((len(wanted), height, width, 3), dtype=torch.uint8, device=self.settings.device)
        except RuntimeError:
            size = len(wanted) * height * width * 3 / 1e9
            raise InputError(
                f"`loader` 'resident' needs {size:,.1f} GB of the memory of {self.settings.device} for the "
                f"{len(wanted):,} images of {self.source.root}, more than there is: use another `loader`."
            ) from None
        chunks = [like._replace(keys=wanted[a : a + 256]) for a in range(0, len(wanted), 256)]
        bad = []
        for chunk, room, done in zip(chunks, images.split(256), self.decoder.run(iter(chunks))):
            room.copy_(done.images)
            bad += chunk.indices[list(done.bad)].tolist()
        self.decoder.close()
        self._resident, self._images, self._bad = wanted, images, np.array(bad, np.int64)

    def close(self) -> None:
        self.decoder.close()
        self._form, self._images = None, torch.empty(0)
