"""The decoder of stored canvases: a batch is a copy of canvases, which ``augment`` crops."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from fastreg.pipelines import crop
from fastreg.pipelines.decoder import BatchRequest, Decoded, DecodePool, DecodeSettings, cancel_all, look_ahead
from fastreg.pipelines.source import Source

BOXES_AT_ONCE = 32  # requests whose boxes are drawn together: drawing for one takes nearly as long as for 32


def stays_as_stored(source: Source, settings: DecodeSettings) -> bool:
    """Whether samples leave the loader undecoded and uncropped: canvases in training, small arrays always."""
    return source.form == "arrays" or (settings.train and source.form == "canvases")


class CanvasDecoder:
    """A ``Decoder`` that copies stored canvases, and in training draws the box that ``augment`` crops."""

    def __init__(self, source: Source, settings: DecodeSettings):
        self.source, self.settings = source, settings
        self.pool = DecodePool(settings.workers)

    def run(self, requests: Iterator[BatchRequest]) -> Generator[Decoded]:
        height, width = self.source.canvas or (0, 0)

        def start(boxed: tuple[BatchRequest, np.ndarray | None]) -> Any:
            request, boxes = boxed
            images = self.settings.buffer((len(request.keys), height, width, 3))
            rows = images.numpy()

            def copy(request: BatchRequest, a: int, b: int) -> None:
                self.source.gather(request.indices[a:b], rows[a:b])

            return images, boxes, self.pool.map_chunks(request, copy, smallest=16, largest=64)

        boxed = with_boxes(self.source, self.settings, requests)
        # one batch ahead: a second would push the first out of the CPU cache
        for images, boxes, futures in look_ahead(boxed, start, 1, lambda started: cancel_all(started[2])):
            try:
                for future in futures:
                    future.result()
            finally:
                cancel_all(futures)
            yield Decoded(images, boxes)

    def close(self) -> None:
        self.pool.close()


def with_boxes(
    source: Source, settings: DecodeSettings, requests: Iterable[BatchRequest]
) -> Iterator[tuple[BatchRequest, np.ndarray | None]]:
    """Each request of an epoch with its boxes over canvases of one size; no boxes in evaluation.

    Small arrays are shifted at random, other canvases get random-resized crops.
    """
    requests = iter(requests)
    while group := list(islice(requests, BOXES_AT_ONCE)):
        if not settings.train or source.canvas is None:
            yield from ((request, None) for request in group)
            continue
        keys, epoch = np.concatenate([request.keys for request in group]), group[0].epoch
        if source.form == "arrays":
            boxes = crop.shift_boxes(settings.seed, keys, epoch, source.canvas, settings.shift)
        else:
            sides = np.broadcast_to(np.asarray(source.canvas, np.int64), (len(keys), 2))
            boxes = crop.random_boxes(settings.seed, keys, epoch, sides[:, 0], sides[:, 1])
        yield from zip(group, np.split(boxes, np.cumsum([len(request.keys) for request in group[:-1]])))
