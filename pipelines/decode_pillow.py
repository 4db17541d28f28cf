"""The ``folder`` loader: Pillow's decoding in threads, with torchvision's crop and resize arithmetic."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fastreg.pipelines import crop
from fastreg.pipelines.decode_canvas import CanvasDecoder, stays_as_stored
from fastreg.pipelines.decoder import (
    BatchRequest,
    Decoded,
    DecodePool,
    Decoder,
    DecodeSettings,
    decode_in_threads,
    report_bad_image,
)
from fastreg.pipelines.image import ERRORS, Header, header, pixels, reason
from fastreg.pipelines.source import Source


def folder_decoder(source: Source, settings: DecodeSettings) -> Decoder:
    """The decoder of the ``folder`` loader: a copy if samples stay as stored, otherwise Pillow."""
    return (CanvasDecoder if stays_as_stored(source, settings) else PillowDecoder)(source, settings)


def train_crop(array: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """torchvision's ``resized_crop``: cut the box, then resize with antialiased bilinear interpolation on 8 bits.

    torch's 8-bit resampling is Pillow's with 16-bit weights: about one value in a hundred differs, by one.

    Args:
        array: uint8 [H, W, 3].
        box: Top, left, height, width in pixels.
        size: Output pixels per side.

    Returns:
        uint8 [size, size, 3].
    """
    top, left, height, width = box.tolist()
    cut = torch.from_numpy(np.array(array[top : top + height, left : left + width], order="C"))[None]
    done = F.interpolate(cut.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True)
    return done.permute(0, 2, 3, 1)[0].numpy()  # channels last throughout: the cut is the only copy


def eval_crop(array: np.ndarray, size: int, resize: float, interpolation: str = "bilinear") -> np.ndarray:
    """torchvision's Resize and CenterCrop with Pillow's resampling: at 224 the shorter side is resized to 256.

    Args:
        array: uint8 [H, W, 3].
        size: Output pixels per side.
        resize: Shorter side after the resize, as a multiple of ``size``.
        interpolation: A key of ``loader_table.INTERPOLATIONS``: the name of Pillow's filter.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = crop.resized(array.shape[0], array.shape[1], size, resize)
    top, left = crop.center(height, width, size)
    image = Image.fromarray(array).resize((width, height), Image.Resampling[interpolation.upper()])
    return np.asarray(image.crop((left, top, left + size, top + size)))


class PillowDecoder:
    """A ``Decoder``. One task reads a chunk of rows, parses headers, draws boxes, decodes and resizes."""

    def __init__(self, source: Source, settings: DecodeSettings):
        self.source, self.settings = source, settings
        self.pool = DecodePool(settings.workers)

    def run(self, requests: Iterator[BatchRequest]) -> Generator[Decoded]:
        return decode_in_threads(requests, self.settings, self.pool, self._chunk)

    def _chunk(self, request: BatchRequest, first: int, out: np.ndarray) -> list[int]:
        """Fill ``out``; returns the rows (of the request) that could not be decoded."""
        rows, s = slice(first, first + len(out)), self.settings
        indices = request.indices[rows]
        bad: list[int] = []
        files: list[tuple[bytes | np.ndarray, Header | None]] = []
        for index in indices:
            try:
                stored = self.source.read(index)
                files.append((stored, header(stored)))
            except ERRORS as error:
                report_bad_image(self.source, index, reason(error), s.on_bad_image)
                files.append((b"", None))
        if s.train:
            sizes = np.array([head[:2] if head else (1, 1) for _, head in files])
            boxes = crop.random_boxes(s.seed, request.keys[rows], request.epoch, sizes[:, 0], sizes[:, 1])
        for row, (index, (stored, head)) in enumerate(zip(indices, files)):
            if head is None:
                bad.append(first + row)
                continue
            try:
                array = pixels(stored, head.plain)
                if s.train:
                    out[row] = train_crop(array, boxes[row], request.size)
                else:
                    out[row] = eval_crop(array, request.size, request.resize, s.interpolation)
            except ERRORS as error:
                report_bad_image(self.source, index, reason(error), s.on_bad_image)
                bad.append(first + row)
        return bad

    def close(self) -> None:
        self.pool.close()
