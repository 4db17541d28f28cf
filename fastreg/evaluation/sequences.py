"""Conditions over sequences of frames: from a batch of images or stored sequences to flips and top-5 distances.

A condition's logits are those of the first frames. The others are counted in a ``SequenceTally`` as they are made, so
that only a few sequences are in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastreg.distributed import World
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.pixel_cache import to_device
from fastreg.evaluation.types import Condition, Row
from fastreg.metrics import SequenceTally

T = TypeVar("T")


class WholeImages(NamedTuple):
    """Images after their resize, before the center crop, each in the top left corner of its canvas."""

    images: Tensor  # uint8 [B, H, W, 3] on the device
    labels: Tensor  # int64 [B] on the device
    indices: Tensor  # int64 [B] on the host
    extents: Tensor  # int64 [B, 2] on the host, height and width


class Clips(NamedTuple):
    """Stored sequences."""

    frames: Tensor  # uint8 [B, F, S, S, 3] on the device
    labels: Tensor  # int64 [B] on the device
    indices: Tensor  # int64 [B] on the host


class SequenceLogits:
    """The logits of first frames; ``row`` has the figures of whole sequences.

    Args:
        make: function from a batch to frames, uint8 [B, F, S, S, 3].
        frames: F.
        reference: "previous", or "first" for noise.
    """

    def __init__(self, make: Callable[[Any], Tensor], frames: int, reference: str):
        self.make, self.frames, self.reference = make, frames, reference
        self.tally: SequenceTally | None = None

    def __call__(self, classifier: Classifier, batch: Any) -> Tensor:
        self.tally = self.tally or SequenceTally(classifier.device, self.reference)
        size = classifier.batch_size or self.frames
        step, firsts = max(1, size // self.frames), []  # whole sequences that fill a batch of the model
        for start in range(0, len(batch.labels), step):
            chunk = type(batch)(*(values[start : start + step] for values in batch))
            frames = self.make(chunk).flatten(0, 1)
            logits = torch.cat([classifier.images(chunk) for chunk in frames.split(size)])
            logits = logits.view(len(chunk.labels), self.frames, -1)
            self.tally.update(logits, chunk.labels)
            firsts.append(logits[:, 0])
        return torch.cat(firsts)

    def row(self, row: Row, world: World) -> Row:
        """The row of a condition, over all ranks."""
        tally = self.tally or SequenceTally(world.device, self.reference)
        tally.merge()
        return {"n": row["n"], **tally.result()}


def sequence_condition(make: Callable[[Any], Tensor], frames: int, reference: str, **options: Any) -> Condition:
    """A condition over sequences; ``options`` are further fields of ``Condition``."""
    logits = SequenceLogits(make, frames, reference)
    return Condition(logits, row=logits.row, collect=_no_values, **options)


def _no_values(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.zeros(len(labels))


class WholeImageBatches:
    """This rank's whole images of a source, resized as for its center crops, by Pillow in threads."""

    def __init__(self, eval_data: EvalData):
        self.source, self.labels = eval_data.source, eval_data.labels
        self.size, self.resize = eval_data.size, 1 / eval_data.crop_pct
        self.filter = Image.Resampling[eval_data.interpolation.upper()]

    def __call__(self, world: World, config: EvalConfig) -> Iterator[WholeImages]:
        for indices, images in in_threads(self._read, len(self.labels), world, config):
            extents = np.array([image.shape[:2] for image in images])
            canvas = np.zeros((len(images), *extents.max(0), 3), np.uint8)
            for target, image, (height, width) in zip(canvas, images, extents.tolist()):
                target[:height, :width] = image
            labels = torch.from_numpy(self.labels[indices])
            yield WholeImages(
                to_device(torch.from_numpy(canvas), world.device),
                to_device(labels, world.device),
                torch.tensor(indices),
                torch.from_numpy(extents),
            )

    def _read(self, index: int) -> np.ndarray:
        from fastreg.pipelines.crop import resized
        from fastreg.pipelines.decoder import report_bad_image
        from fastreg.pipelines.image import ERRORS, header, pixels, reason

        try:
            stored = self.source.read(index)
            array = pixels(stored, header(stored).plain)
        except ERRORS as error:
            report_bad_image(self.source, index, reason(error), "error")
            raise
        height, width = resized(array.shape[0], array.shape[1], self.size, self.resize)
        return np.asarray(Image.fromarray(array).resize((width, height), self.filter))


def in_threads(
    read: Callable[[int], T], count: int, world: World, config: EvalConfig
) -> Iterator[tuple[Sequence[int], list[T]]]:
    """``read`` of this rank's indices in order, a few dozen at once; the next ones are read meanwhile."""
    from fastreg.pipelines.decoder import worker_count

    step = max(1, min(16, config.batch_size))
    blocks = (range(start, min(start + step, count)) for start in range(world.rank * step, count, world.size * step))
    with ThreadPoolExecutor(worker_count(config.workers), thread_name_prefix="fastreg-frames") as pool:
        waiting = [(block, [pool.submit(read, i) for i in block]) for block in islice(blocks, 2)]
        while waiting:
            block, futures = waiting.pop(0)
            found = [future.result() for future in futures]
            waiting += [(after, [pool.submit(read, i) for i in after]) for after in islice(blocks, 1)]
            yield list(block), found
