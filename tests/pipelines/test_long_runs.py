"""24 epochs and 2000 steps of each loader: memory, threads and descriptors stay."""

from __future__ import annotations

import gc
import os
import threading
from multiprocessing import get_context

import numpy as np
import pytest

from fastreg.pipelines import make_loader, open_dataset, write_beton
from tests.pipelines.shard_files import write_parquet, write_shards
from tests.support import resident_memory

EPOCHS = 24
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def sources(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("long")
    for name, form in (("mixed", {"jpeg_prob": 1}), ("canvases", {"raw": 40})):
        write_beton("imagenet", data / "imagenet", root / name / "train.beton", **form)
    images = open_dataset("imagenet", "train", data / "imagenet")
    return {
        "images": ("imagenet", "train", data / "imagenet"),
        "beton": ("imagenet", "train", root / "mixed"),
        "canvases": ("imagenet", "train", root / "canvases"),
        "tar": ("folder", "train", write_shards(images, root / "tar")[0].parent),
        "parquet": ("folder", "train", write_parquet(images, root / "parquet")[0].parent),
    }


def run(
    source: tuple, loader: str, batch_size: int = 6, size: int = 32
) -> tuple[list[float], list[int], list[int], int, list[str]]:
    """Memory in MB, threads and descriptors after each epoch; the steps; fastreg's threads after the end."""
    memory, threads, descriptors, steps = [], [], [], 0
    opened = open_dataset(*source)
    with make_loader(opened, loader=loader, train=True, batch_size=batch_size, size=size, workers=2) as running:
        for epoch in range(EPOCHS):
            for _ in running.batches(epoch * running.order.samples_per_epoch):
                steps += 1
            gc.collect()
            memory.append(resident_memory() / MEGABYTE)
            threads.append(len(os.listdir("/proc/self/task")))
            descriptors.append(len(os.listdir("/proc/self/fd")))
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("fastreg")]
    return memory, threads, descriptors, steps, left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loader", "form"),
    [
        ("folder", "images"),
        ("folder", "canvases"),
        ("folder", "tar"),
        ("folder", "parquet"),
        ("ffcv", "beton"),
        ("dali", "images"),
        ("resident", "canvases"),
        ("synthetic", "images"),
    ],
)
def test_nothing_grows_after_the_second_epoch(sources, loader, form):
    with get_context("spawn").Pool(1) as process:  # the memory of a process of its own
        memory, threads, descriptors, steps, left = process.apply(run, (sources[form], loader))
    assert steps >= 2000  # 96 of an epoch of 576 images
    slope = float(np.polyfit(range(EPOCHS - 2), memory[2:], 1)[0])  # MB per epoch
    assert slope * (EPOCHS - 2) < 8, memory  # a batch has 0.02 MB, the 96 batches of an epoch 1.8 MB
    assert max(threads[2:]) <= threads[1], threads
    assert max(descriptors[2:]) <= descriptors[1], descriptors
    assert not left


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["folder", "dali"])
def test_large_batches_keep_no_memory(sources, loader):
    """Resident memory at the end is what it was after the first epochs: to 4 MB, and for DALI, whose pools settle
    slowly, to 16 (an epoch hands out 7 MB of batches)."""
    with get_context("spawn").Pool(1) as process:
        memory, *_ = process.apply(run, (sources["images"], loader, 40, 64))
    assert min(memory[-5:]) - max(memory[3:8]) < (4 if loader == "folder" else 16), memory
