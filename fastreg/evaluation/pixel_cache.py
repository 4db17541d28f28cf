"""The evaluation set as uint8 pixels, decoded once and read by every condition."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastreg.distributed import World
from fastreg.progress import progress


class Pixels(NamedTuple):
    """One batch of decoded images."""

    images: Tensor  # uint8 [B, S, S, 3] on the device
    labels: Tensor  # int64 [B] on the device
    indices: Tensor  # int64 [B] on the host: the key of every draw


class FloatPixels(NamedTuple):
    """One batch of images that are pixels already, such as drawn noise."""

    pixels: Tensor  # float32 [B, 3, S, S] in [0, 1] on the device
    labels: Tensor  # int64 [B] on the device
    indices: Tensor  # int64 [B] on the host


class PixelCache:
    """This rank's share of a set: ``images`` uint8 [n, S, S, 3], ``labels`` and ``indices`` int64 [n].

    ``where`` names the memory of the pixels: the device if they fit into half of its free memory, else host memory,
    else an unnamed scratch file (memory-mapped). ImageNet's 50 000 images at 224 px are 7.5 GB. Batches on their way to
    a GPU are pinned, so that the host does not wait for the copy.
    """

    def __init__(self, images: Tensor, labels: Tensor, indices: Tensor, device: torch.device, where: str):
        self.images, self.labels = images, labels.to(device)
        self.indices = indices.pin_memory() if device.type == "cuda" else indices
        self.device, self.where = device, where

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def size(self) -> int:
        return self.images.shape[1]

    def batches(self, batch_size: int) -> Iterator[Pixels]:
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            yield Pixels(to_device(self.images[rows], self.device), self.labels[rows], self.indices[rows])


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """``x`` on ``device``. Copies from the host to a GPU are asynchronous, through pinned memory."""
    if x.device.type == device.type or device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def decode(source: Any, world: World, *, size: int, batch_size: int, **loading: Any) -> PixelCache:
    """Decode a rank's share of a Source once, and show the progress.

    Args:
        source: encoded images are resized and cut out of the center (ImageNet); stored ones are taken as they are.
        world: this rank among all.
        size: side of the decoded images in pixels.
        batch_size: images decoded at once.
        loading: further arguments of ``fastreg.pipelines.make_loader``: loader, workers, resize.
    """
    from fastreg.pipelines import make_loader

    share = math.ceil(len(source) / (batch_size * world.size)) * batch_size
    images, where = _storage((share, size, size, 3), world.device)
    labels, indices = torch.empty(share, dtype=torch.int64), torch.empty(share, dtype=torch.int64)
    loader = make_loader(
        source,
        train=False,
        batch_size=batch_size,
        size=size,
        rank=world.rank,
        world=world.size,
        device=world.device,
        **loading,
    )
    n = 0
    try:
        with progress(f"decode {source.name}", math.ceil(len(source) / world.size)) as bar:
            for batch in loader.batches():
                rows = slice(n, n + len(batch.labels))
                images[rows] = batch.images
                labels[rows], indices[rows] = batch.labels.cpu(), batch.indices
                n += len(batch.labels)
                bar.advance(len(batch.labels))
    finally:
        loader.close()
    return PixelCache(images[:n], labels[:n], indices[:n], world.device, where)


def from_arrays(images: Tensor, labels: Tensor, world: World) -> PixelCache:
    """A PixelCache of decoded images uint8 [N, S, S, 3] and labels int64 [N]: one of each ``world.size`` images."""
    device, own = world.device, torch.arange(world.rank, len(images), world.size)
    mine = images if world.size == 1 else images[own]
    fits = device.type == "cpu" or mine.nbytes < _free(device) / 2
    return PixelCache(mine.to(device) if fits else mine, labels[own], own, device, "device" if fits else "host")


def _storage(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, str]:
    size = math.prod(shape)
    if device.type == "cpu" or size > _free(device) / 2:
        if size <= _free(torch.device("cpu")) / 2:
            return torch.empty(shape, dtype=torch.uint8), "host"
        with tempfile.TemporaryDirectory() as folder:  # the mapping outlives the file's name
            mapped = torch.from_file(str(Path(folder) / "pixels"), shared=True, size=size, dtype=torch.uint8)
        return mapped.view(shape), "scratch file"
    return torch.empty(shape, dtype=torch.uint8, device=device), "device"


def _free(device: torch.device) -> int:
    """Free bytes of a device; on the host the memory that the system reports as available."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kilobytes[0] * 1024 if kilobytes else 8 << 30
