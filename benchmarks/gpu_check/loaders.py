"""Loader batches on the GPU against the same batches on the CPU, with a slow consumer, to expose early buffer reuse.

The consumer reads each batch only after other work in its stream.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.benchmarks.gpu_check.check import EXACT, Check, Tensors
from fastreg.benchmarks.images import image_batch

CPU = torch.device("cpu")
IMAGES, BATCH, SIDE, EPOCHS = 64, 4, 64, 2
BLOCK = 8  # side of the averages by which two decoders are compared: chroma upsampling and rounding average out
LEVELS = 3.0  # difference of these averages, of 255


def loader_checks() -> Iterator[Check]:
    """Files and stored images through the staging ring, stored images on the device, and DALI beside Pillow."""
    for name, loader, stored in (
        ("files over the side stream", "folder", False),
        ("canvases over the side stream", "folder", True),
        ("resident canvases", "resident", True),
    ):
        yield Check(f"loader {name}", partial(_batches, loader, stored), EXACT)
    yield Check("loader dali against Pillow", _dali, EXACT)


@cache
def _files() -> tuple[tempfile.TemporaryDirectory, Path]:
    """``(handle that deletes them, root)``: JPEG files of many sizes in two classes, and a .beton file of them."""
    from PIL import Image  # imported here: without Pillow the check is reported as not checked

    from fastreg.pipelines import write_beton

    keep = tempfile.TemporaryDirectory(prefix="fastreg-loaders-")
    root = Path(keep.name)
    for i, pixels in enumerate(image_batch(IMAGES, 320, CPU, seed=2).numpy()):
        folder = root / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[: 320 - 2 * i, : 200 + i]).save(folder / f"{i:02d}.jpg", quality=90)
    write_beton("imagenet", root, root / "train.beton", raw=96)
    return keep, root


def _batches(loader: str, stored: bool, device: torch.device) -> Tensors:
    """Images, labels, indices and boxes of two epochs."""
    from fastreg.pipelines import make_loader, open_dataset

    _, root = _files()
    name, path = ("imagenet", root / "train.beton") if stored else ("folder", root)
    source = open_dataset(name, "train", path)
    busy = torch.full((2048, 2048) if device.type == "cuda" else (1, 1), 1e-3, device=device)
    taken: list[tuple[Tensor, ...]] = []
    with make_loader(source, loader=loader, train=True, batch_size=BATCH, size=SIDE, seed=3, device=device) as made:
        for epoch in range(EPOCHS):
            for batch in made.batches(epoch * made.steps_per_epoch * made.global_batch):
                for _ in range(4):
                    busy = busy @ busy
                taken.append(tuple(tensor.clone() for tensor in batch if tensor is not None))
                del batch
    return tuple(torch.cat(tensors) for tensors in zip(*taken))


def _dali(device: torch.device) -> Tensors:
    """Whether each image equals Pillow's of the same box up to ``LEVELS``; labels; indices."""
    importlib.import_module("nvidia.dali")
    images, *rest = _batches("dali", False, device)
    blocks = [F.avg_pool2d(x.permute(0, 3, 1, 2).float().cpu(), BLOCK) for x in (images, _pillow()[0])]
    return ((blocks[0] - blocks[1]).abs().amax((1, 2, 3)) < LEVELS, *rest)


@cache
def _pillow() -> Tensors:
    return _batches("folder", False, CPU)
