"""SPDL's pipelines of threads: FFmpeg's decoder with a filter, as documented, and simplejpeg in place of FFmpeg."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers import need
from fastreg.pipelines.crop import random_boxes
from fastreg.pipelines.image import header

Decode = Callable[[bytes, list[int], int], Any]  # of a file, the crop's top, left, height and width, and the size


def spdl_ffmpeg(source: Any, batch: int, size: int, workers: int, options: BenchmarkOptions) -> Iterator[Any]:
    """SPDL's decoder: demux, decode, FFmpeg's crop and bilinear scale, and one buffer for a batch's frames."""
    spdl = need("spdl.io")
    try:
        need("spdl.io.utils").get_ffmpeg_versions()
    except RuntimeError:
        raise ImportError("spdl.io needs FFmpeg's libraries (Debian 12: libavdevice59 and libavfilter8)") from None

    def decode(stored: bytes, box: list[int], size: int) -> Any:
        top, left, height, width = box
        filters = f"crop={width}:{height}:{left}:{top},scale={size}:{size}:flags=bilinear,format=pix_fmts=rgb24"
        return spdl.decode_packets(spdl.demux_image(stored), filter_desc=filters)

    def collate(frames: list[Any]) -> torch.Tensor:
        return spdl.to_torch(spdl.convert_frames(frames))

    yield from _pipeline(decode, collate, source, batch, size, workers, options)


def spdl_simplejpeg(source: Any, batch: int, size: int, workers: int, options: BenchmarkOptions) -> Iterator[Any]:
    """SPDL's threads around simplejpeg's decoder and Pillow's antialiased bilinear resize."""
    need("spdl.pipeline")
    if not source.read(0).startswith(b"\xff\xd8"):
        raise ImportError("simplejpeg decodes JPEG files only")

    def collate(images: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(images))

    yield from _pipeline(_by_simplejpeg, collate, source, batch, size, workers, options)


def _by_simplejpeg(stored: bytes, box: list[int], size: int) -> np.ndarray:
    import simplejpeg
    from PIL import Image

    top, left, height, width = box
    image = Image.fromarray(simplejpeg.decode_jpeg(stored)[top : top + height, left : left + width])
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _pipeline(
    decode: Decode,
    collate: Callable[[list[Any]], torch.Tensor],
    source: Any,
    batch: int,
    size: int,
    workers: int,
    options: BenchmarkOptions,
) -> Iterator[Any]:
    """Shuffled random-resized crops without end: a stage of ``workers`` threads, then batches."""
    build = need("spdl.pipeline").PipelineBuilder

    def indices() -> Iterator[int]:
        while True:
            yield from torch.randperm(len(source)).tolist()

    def load(index: int) -> tuple[Any, int]:
        stored = source.read(index)
        head = header(stored)
        seed = int(torch.randint(1 << 31, ()))
        box = random_boxes(seed, np.array([index]), 0, np.array([head.height]), np.array([head.width]))[0].tolist()
        return decode(stored, box, size), int(source.labels[index])

    def join(samples: list[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = zip(*samples)
        return collate(list(images)), torch.tensor(labels)

    pipeline = (
        build()
        .add_source(indices())
        .pipe(load, concurrency=workers)
        .aggregate(batch, drop_last=True)
        .pipe(join)
        .add_sink(2)
        .build(num_threads=workers + 1)
    )
    with pipeline.auto_stop():
        for images, labels in pipeline:
            yield images.to(options.device, non_blocking=True), labels


PEERS = {"SPDL": spdl_ffmpeg, "SPDL + simplejpeg": spdl_simplejpeg}
