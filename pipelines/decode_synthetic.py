"""The ``synthetic`` loader: one batch of noise, returned for every request, to time a step without loading."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import torch

from fastreg.pipelines.decode_canvas import stays_as_stored, with_boxes
from fastreg.pipelines.decoder import BatchRequest, Decoded, DecodeSettings
from fastreg.pipelines.source import Source


class SyntheticDecoder:
    """A ``Decoder`` that returns the same noise on the device for every request. Labels and boxes are the real ones."""

    def __init__(self, source: Source, settings: DecodeSettings):
        self.source, self.settings = source, settings
        self._images = torch.empty(0)

    def run(self, requests: Iterator[BatchRequest]) -> Generator[Decoded]:
        canvas = self.source.canvas if stays_as_stored(self.source, self.settings) else None
        for request, boxes in with_boxes(self.source, self.settings, requests):
            height, width = canvas or (request.size, request.size)
            shape = (len(request.keys), height, width, 3)
            if self._images.shape[1:] != shape[1:] or len(self._images) < shape[0]:
                self._images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.settings.device)
            yield Decoded(self._images[: shape[0]], boxes)

    def close(self) -> None:
        self._images = torch.empty(0)
