"""Time of one loader thread per image, stage by stage, and the stage that takes most."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastreg.pipelines import crop
from fastreg.pipelines.decode_ffcv import library
from fastreg.pipelines.decode_pillow import train_crop
from fastreg.pipelines.image import header, pixels

SAMPLED = 64  # images


def bottleneck(name: str, source: Any, size: int, workers: int, us: float) -> str:
    """One clause about the slowest stage of a loader.

    Args:
        name: the loader.
        source: the data set that it reads.
        size: pixels of its crops.
        workers: its threads.
        us: microseconds that it takes per image with these threads.
    """
    indices = np.linspace(0, len(source) - 1, SAMPLED).astype(np.int64)
    runs = [stages(name, source, size, indices) for _ in range(4)][1:]
    spent = {stage: min(run[stage] for run in runs) for stage in runs[0]}
    whole = sum(spent.values())
    busy = f"{100 * whole / (us * workers):.0f} % of the time of {workers} threads"
    shares = ", ".join(f"{stage} {value:.0f} us" for stage, value in spent.items())
    if name == "dali":
        return f"DALI, which decodes and resizes; {shares} per image, {busy}"
    return f"{max(spent, key=lambda stage: spent[stage])}; {shares} per image, {busy}"


def stages(name: str, source: Any, size: int, indices: np.ndarray) -> dict[str, float]:
    """Microseconds per image of each stage of the decoder, on this thread."""
    spent: dict[str, float] = {}
    start = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal start
        now = time.perf_counter()
        spent[stage] = 1e6 * (now - start) / len(indices)
        start = now

    if source.canvas is not None:
        room = np.empty((len(indices), *source.canvas, 3), np.uint8)
        start = time.perf_counter()
        for row, index in enumerate(indices):
            room[row] = source.read(index)
        lap("copying")
        return spent
    stored = [source.read(index) for index in indices]
    lap("reading")
    heads = [header(data) for data in stored]
    heights, widths = (np.array([head[axis] for head in heads]) for axis in (0, 1))
    boxes = crop.random_boxes(0, indices, 0, heights, widths)
    lap("headers and boxes")
    if name == "folder":
        arrays = [pixels(data, head.plain) for data, head in zip(stored, heads)]
        lap("decoding")
        for array, box in zip(arrays, boxes):
            train_crop(array, box, size)
        lap("cropping and resizing")
    elif name == "ffcv":
        routines, out = library(), np.empty((size, size, 3), np.uint8)
        arrays = [np.empty((head.height, head.width, 3), np.uint8) for head in heads]
        start = time.perf_counter()
        for array, index in zip(arrays, indices):
            routines.imdecode(source.stored(index), array, *array.shape[:2], *array.shape[:2])
        lap("decoding")
        for array, (top, left, height, width) in zip(arrays, boxes.tolist()):
            routines.resize_crop(array, top, top + height, left, left + width, out)
        lap("cropping and resizing")
    return spent
