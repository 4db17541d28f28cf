"""What the loaders bring to the device, against the same batches on the CPU, behind a consumer that lags.

``arrivals()`` gives (name, make, largest difference, share that may differ), as ``replays`` does for the kernels. Every
batch is read only after other work in the consumer's stream, so memory that is used again too early shows.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.benchmarks.images import image_batch

CPU = torch.device("cpu")
IMAGES, BATCH, SIDE, EPOCHS = 64, 4, 64, 2
BLOCK = 8  # pixels that are averaged before two decoders are compared: chroma upsampling and rounding average out
LEVELS = 3.0  # that the averages of two decoders may differ, of 255


def arrivals() -> Iterator[tuple[str, Callable[[torch.device], tuple[Tensor, ...]], float, float]]:
    for name, loader, canvases in (
        ("files over the side stream", "folder", False),
        ("canvases over the side stream", "folder", True),
        ("resident canvases", "resident", True),
    ):
        yield f"loader {name}", partial(_batches, loader, canvases), 0.0, 0.0
    yield "loader dali against Pillow", _dali, 0.0, 0.0


@cache
def _files() -> tuple[tempfile.TemporaryDirectory, Path]:
    """(what removes them at the end, root): JPEG files of many sizes in two classes, and canvases of them."""
    from PIL import Image  # here: the gate runs on machines without it, and says what it could not check

    from fastreg.pipelines import write_beton

    keep = tempfile.TemporaryDirectory(prefix="fastreg-arrivals-")
    root = Path(keep.name)
    for i, pixels in enumerate(image_batch(IMAGES, 320, CPU, seed=2).numpy()):
        folder = root / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[: 320 - 2 * i, : 200 + i]).save(folder / f"{i:02d}.jpg", quality=90)
    write_beton("imagenet", root, root / "train.beton", raw=96)
    return keep, root


def _batches(loader: str, canvases: bool, device: torch.device) -> tuple[Tensor, ...]:
    """Images, labels, indices and boxes of two epochs."""
    from fastreg.pipelines import make_loader, open_dataset

    _, root = _files()
    name, path = ("imagenet", root / "train.beton") if canvases else ("folder", root)
    source = open_dataset(name, "train", path)
    busy = torch.full((2048, 2048) if device.type == "cuda" else (1, 1), 1e-3, device=device)
    taken: list[tuple[Tensor, ...]] = []
    with make_loader(source, loader=loader, train=True, batch_size=BATCH, size=SIDE, seed=3, device=device) as made:
        for epoch in range(EPOCHS):
            for batch in made.batches(epoch * made.steps_per_epoch * made.global_batch):
                for _ in range(4):
                    busy = busy @ busy
                taken.append(tuple(part.clone() for part in batch if part is not None))
                del batch
    return tuple(torch.cat(parts) for parts in zip(*taken))


def _dali(device: torch.device) -> tuple[Tensor, ...]:
    """Whether each image is what Pillow makes of the same box; labels, indices. Decoders are not equal to the bit."""
    importlib.import_module("nvidia.dali")
    images, *rest = _batches("dali", False, device)
    blocks = [F.avg_pool2d(x.permute(0, 3, 1, 2).float().cpu(), BLOCK) for x in (images, _pillow()[0])]
    return ((blocks[0] - blocks[1]).abs().amax((1, 2, 3)) < LEVELS, *rest)


@cache
def _pillow() -> tuple[Tensor, ...]:
    return _batches("folder", False, CPU)
