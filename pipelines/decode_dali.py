"""The ``dali`` loader: NVIDIA DALI's Pipeline API, fed with encoded bytes and boxes through external sources.

With a GPU, DALI decodes whole images (mixed decoding, hardware engine) and crops them there; without one, its CPU
pipeline decodes the crop alone. Images that DALI decodes differently from Pillow (CMYK, palette, alpha, 16-bit, a
missing end marker) are decoded by Pillow and passed on losslessly.

On a GPU no regions are decoded, for two reasons. With an nvJPEG older than 13.2 (all of CUDA 12), nvImageCodec decodes
regions of JPEGs with subsampled colors on the CPU, unless colors are upsampled in another way than in libjpeg. Its
release 0.9, which DALI 2.4 requires, is reported to crash on regions on an H100 (nvImageCodec issue 55).

The consumer's thread feeds DALI, which holds Python's lock, so another thread would stop it as long. Encoded images are
therefore shared with DALI instead of copied: 256 of 46 kB take 1.0 ms of that thread, copied 7.8 ms (2 cores of a Xeon,
DALI 2.4, Nov 2026, medians of interleaved runs). Threads of the loader read files and headers.
"""

from __future__ import annotations

import io
import sys
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from fastreg.errors import InputError
from fastreg.log import log
from fastreg.pipelines import crop
from fastreg.pipelines.decode_pillow import PillowDecoder
from fastreg.pipelines.decoder import (
    BatchRequest,
    Decoded,
    DecodeSettings,
    cancel_all,
    look_ahead,
    report_bad_image,
)
from fastreg.pipelines.image import ERRORS, header, open_image, reason, to_rgb
from fastreg.pipelines.loader_table import LOADERS
from fastreg.pipelines.source import Source

DEPTH = 3  # batches inside DALI: one being fetched and two in work, as in its own iterator
HW_LOAD = 0.65  # share of a mixed batch for the hardware engine


# Per-sample inputs beside the bytes, (vertical, horizontal) pixels: dtype, and the value for a blank image of 8 x 8
_WINDOWS = {
    "anchor": (np.int32, 0),  # training: corner of the crop
    "shape": (np.int32, 8),  # training: its sides
    "resized": (np.float32, 8),  # what it is resized to
    "cut": (np.int32, 0),  # evaluation: corner of the final square
    "square": (np.int32, 8),  # evaluation: its sides
}


class _Prepared(NamedTuple):
    """DALI's inputs for consecutive rows."""

    encoded: list[np.ndarray]
    windows: dict[str, np.ndarray]  # [n, 2] each
    bad: list[int]


def _ppm(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(to_rgb(image)).save(buffer, "PPM")
    return buffer.getvalue()


_BLANK = _ppm(Image.new("RGB", (8, 8)))  # stands in for a skipped image; its row is dropped


class DaliDecoder:
    """A ``Decoder``. Threads read, parse headers and draw boxes; DALI decodes and resizes."""

    def __init__(self, source: Source, settings: DecodeSettings):
        try:
            import nvidia.dali  # noqa: F401
        except ImportError as error:
            install = LOADERS["dali"].install_command(torch.version.cuda)
            raise InputError(f"`loader` 'dali' needs DALI ({error}): {install}.") from None
        self.source, self.settings = source, settings
        self.pillow = PillowDecoder(source, settings)
        self.regions = settings.device.type != "cuda"  # whether the crop is decoded alone
        self._pipe: Any = None
        # DALI reads a shared batch until its output is consumed and its queue has gone round once more
        self._shared: deque[list[np.ndarray]] = deque(maxlen=2 * DEPTH)

    def run(self, requests: Iterator[BatchRequest]) -> Generator[Decoded]:
        inside: list[tuple[BatchRequest, list[int]]] = []  # fed to DALI and not yet returned

        def start(request: BatchRequest) -> Any:
            return request, self.pillow.pool.map_chunks(request, self._prepare, smallest=32)

        prepared = look_ahead(requests, start, 2, lambda started: cancel_all(started[1]))
        try:
            for request, futures in prepared:
                try:
                    chunks = [future.result() for future in futures]
                finally:
                    cancel_all(futures)
                inside.append((request, [row for chunk in chunks for row in chunk.bad]))
                self._feed(request, chunks)
                if len(inside) >= DEPTH:
                    yield from self._take(inside)
            while inside:
                yield from self._take(inside)
        finally:
            prepared.close()  # type: ignore[attr-defined]
            if inside and self._pipe is not None and not sys.is_finalizing():  # at exit DALI goes first
                self._drain(len(inside))

    def _take(self, inside: list[tuple[BatchRequest, list[int]]]) -> Iterator[Decoded]:
        """The oldest batch. If DALI refuses it, Pillow decodes all pending batches and names the broken image."""
        try:
            # bound to the consumer's stream: the host does not wait, and DALI reuses the memory in that stream's order
            gpu = self.settings.device.type == "cuda"
            stream = torch.cuda.current_stream(self.settings.device) if gpu else None
            (out,) = self._pipe.share_outputs(cuda_stream=stream)
            images = torch.from_dlpack(out.as_tensor())
            self._pipe.release_outputs()
        except RuntimeError as error:  # the pipeline is dead after an error
            self._pipe = None
            why = str(error).strip().splitlines()
            log.warning("DALI refused a batch (%s): decoding %d with Pillow.", why[-1] if why else "?", len(inside))
            while inside:
                request, _ = inside.pop(0)
                yield from self.pillow.run(iter([request]))
            return
        request, bad = inside.pop(0)
        yield Decoded(images, None, tuple(bad))

    def _prepare(self, request: BatchRequest, first: int, stop: int) -> _Prepared:
        indices, s = request.indices[first:stop], self.settings
        encoded, sizes, bad = [], [], []
        for row, index in enumerate(indices):
            try:
                stored = self.source.read(index)
                head = header(stored)
                data = stored if head.plain else _ppm(open_image(stored))
                sizes.append(head[:2])
            except ERRORS as error:
                report_bad_image(self.source, index, reason(error), s.on_bad_image)
                bad.append(first + row)
                data = _BLANK
                sizes.append((8, 8))
            encoded.append(np.frombuffer(data, np.uint8))
        sides = np.asarray(sizes)
        if s.train:
            boxes = crop.random_boxes(s.seed, request.keys[first:stop], request.epoch, sides[:, 0], sides[:, 1])
            windows = {"anchor": boxes[:, :2], "shape": boxes[:, 2:], "resized": np.full_like(sides, request.size)}
        else:
            resized = np.array([crop.resized(h, w, request.size, request.resize) for h, w in sizes])
            cut = np.array([crop.center(h, w, request.size) for h, w in resized.tolist()])
            windows = {"resized": resized, "cut": cut, "square": np.full_like(sides, request.size)}
        return _Prepared(encoded, windows, bad)

    def _feed(self, request: BatchRequest, chunks: list[_Prepared]) -> None:
        if self._pipe is None or self._pipe.max_batch_size < len(request.keys):
            self._pipe = self._build(len(request.keys))
        self._shared.append([data for chunk in chunks for data in chunk.encoded])
        self._pipe.feed_input("encoded", self._shared[-1])
        for name in chunks[0].windows:
            values = np.concatenate([chunk.windows[name] for chunk in chunks])
            self._pipe.feed_input(name, values.astype(_WINDOWS[name][0]))
        self._pipe.schedule_run()

    def _build(self, batch_size: int) -> Any:
        """A running, empty pipeline. DALI's first run takes DEPTH batches, so blank images are fed first."""
        import nvidia.dali as dali

        fn: Any = dali.fn
        types: Any = dali.types
        gpu, train = self.settings.device.type == "cuda", self.settings.train
        windows = list(_WINDOWS)[:3] if train else list(_WINDOWS)[2:]
        inside = {"normalized_anchor": False, "normalized_shape": False, "axes": (0, 1)}
        decoding = {
            "device": "mixed" if gpu else "cpu",
            "output_type": types.RGB,
            "adjust_orientation": False,  # as torchvision: EXIF rotation is not applied
            "jpeg_fancy_upsampling": True,  # as libjpeg
            **({"hw_decoder_load": HW_LOAD} if gpu else {}),
        }

        @dali.pipeline_def
        def graph() -> Any:
            encoded = fn.external_source(name="encoded", no_copy=True)
            given = {name: fn.external_source(name=name) for name in windows}
            if train and self.regions:
                image = fn.decoders.image_slice(encoded, given["anchor"], given["shape"], **inside, **decoding)
            else:
                image = fn.decoders.image(encoded, **decoding)
            if train and not self.regions:
                image = fn.slice(image, given["anchor"], given["shape"], **inside)
            image = fn.resize(image, size=given["resized"], interp_type=types.INTERP_LINEAR, antialias=True)
            return image if train else fn.slice(image, given["cut"], given["square"], **inside)

        pipe = graph(
            batch_size=batch_size,
            num_threads=self.settings.workers + 1,  # one more than cores: the feeding thread takes 9 % of two cores
            device_id=(self.settings.device.index or 0) if gpu else None,
            prefetch_queue_depth=DEPTH,
        )
        try:
            pipe.build()
            for _ in range(DEPTH):
                pipe.feed_input("encoded", [np.frombuffer(_BLANK, np.uint8)])
                for name in windows:
                    dtype, value = _WINDOWS[name]
                    pipe.feed_input(name, np.full((1, 2), value, dtype))
            pipe.schedule_run()
        except RuntimeError as error:
            raise InputError(
                f"DALI cannot start on {self.settings.device} ({error}): set `loader` to folder."
            ) from None
        for _ in range(DEPTH):
            pipe.share_outputs()
            pipe.release_outputs()
        return pipe

    def _drain(self, batches: int) -> None:
        try:
            for _ in range(batches):
                self._pipe.share_outputs()
                self._pipe.release_outputs()
        except RuntimeError:
            self._pipe = None

    def close(self) -> None:
        self._pipe = None
        self._shared.clear()
        self.pillow.close()
