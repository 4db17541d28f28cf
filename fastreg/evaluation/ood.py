"""Out-of-distribution detection by the largest softmax probability (the paper's last column).

Seven sets, as ODIN (Liang et al. 2018) built them: Tiny ImageNet and LSUN, cropped and resized, iSUN, and two noises.
The noises are drawn, as many images as the data has and at most 10 000 (Gaussian: N(0.5, 1) clipped to [0, 1]; uniform
on [0, 1]); the five photograph sets are read from ``<ood folder>/<set>/**`` and are never replaced by others when they
are missing. Further folders there are sets of one's own, outside the mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import InputError, RunError
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.eval_data import EvalData, listed
from fastreg.evaluation.pixel_cache import Pixels, to_device
from fastreg.evaluation.suites import NOISES, OOD_SETS, PHOTOGRAPHS
from fastreg.evaluation.types import Condition, EvalConfig, Place, SuitePlan
from fastreg.kernels import philox
from fastreg.pipelines.source import EXTENSIONS

NOISE_IMAGES = 10_000
_TUNING = 1000  # ODIN's drivers keep the first thousand of each set for tuning


def work(eval_data: EvalData, options: EvalConfig) -> SuitePlan:
    """One step per set that is there.

    Raises InputError when a folder was named and holds none, a set's name is taken, its images have another size than
    the model's, or it ends within ODIN's tuning images.
    """
    root = Path(options.ood_dir or Path(os.environ.get("FASTREG_DATA", "data")) / "ood")
    first = _TUNING if options.odin_split else 0
    found = {}
    for name, files in _sets(root, options.ood_dir is not None).items():
        tuned = first if name in PHOTOGRAPHS else 0  # sets of one's own have no images for tuning
        _enough(len(files), tuned, files[0].parent)
        side = _side(files[0], eval_data.size)
        extra = {"stored_px": side, "fingerprint": listed((f.name, f.stat().st_size) for f in files)}
        batches = _photographs(files[tuned:], side, eval_data.size)
        found[name] = Condition(on_pixels, batches, len(files) - tuned, extra, out=True)
    last = min(NOISE_IMAGES, len(eval_data))
    _enough(last, first, "the data")
    for name in NOISES:
        drawn = _noise(name, range(first, last), eval_data.size, options.seed)
        found[name] = Condition(on_pixels, drawn, last - first, out=True)
    return SuitePlan({"score": "largest softmax probability", "folder": str(root), "first": first}, found)


def _sets(root: Path, named: bool) -> dict[str, list[Path]]:
    """The image files of each set under ``root``: the paper's, then any further folder as a set of its own.

    A ``named`` root without any of the paper's is one set itself, whatever folders it has.
    """
    sets: dict[str, list[Path]] = {}
    for name, folders in PHOTOGRAPHS.items():
        for place in folders:
            files = _images(root / place)
            if files and name in sets:
                raise InputError(f"{root} holds {name} twice, as {' and '.join(folders)}: keep one.")
            if files:
                sets[name] = files
    known = {folder for folders in PHOTOGRAPHS.values() for folder in folders}
    own = [root] if named and not sets else sorted(root.iterdir()) if root.is_dir() else []
    for folder in own:
        files = _images(folder) if folder.name not in known or folder == root else []
        name = folder.absolute().name
        if files and name in OOD_SETS:
            raise InputError(f"{folder} has the name of one of the paper's sets ({', '.join(OOD_SETS)}): rename it.")
        if files:
            sets[name] = files
    if named and not sets:
        raise InputError(f"{root} holds no images: put sets in folders named {', '.join(PHOTOGRAPHS)}.")
    return sets


def _enough(n: int, first: int, what: object) -> None:
    if first and n <= first:
        raise InputError(
            f"--odin-split leaves out the first {first:,} images, but {what} has only {n:,}: leave the flag out."
        )


def on_pixels(classifier: Classifier, batch: Pixels) -> Tensor:
    """The sets are float32 pixels [B, 3, S, S] already."""
    return classifier.pixels(batch.images)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir() or folder.name.startswith("."):
        return []
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in EXTENSIONS and not f.name.startswith("."))


def _side(path: Path, size: int) -> int:
    """The side in pixels of a set's images, by its first one; up to a quarter above ``size``: those have a border."""
    height, width = _read(path).shape[:2]
    if height != width or not size <= height <= 1.25 * size:
        raise InputError(f"{path} is {width} x {height} px, not {size}: these sets are made for one size.")
    return height


def _photographs(files: list[Path], side: int, size: int) -> Callable[[Place], Iterator[Pixels]]:
    """Images of ``side`` pixels, of which the centre ``size`` are used."""
    low = (side - size) // 2

    def batches(place: Place) -> Iterator[Pixels]:
        for rows in _rows(0, len(files), place):
            images = [_read(files[i]) for i in rows]
            for i, image in zip(rows, images):
                height, width = image.shape[:2]
                if (height, width) != (side, side):
                    raise InputError(f"{files[i]} is {width} x {height} px, the set's others {side}: fetch it again.")
            centres = np.stack([image[low : low + size, low : low + size] for image in images])
            pixels = to_device(torch.from_numpy(centres), place.device).permute(0, 3, 1, 2).float() / 255
            yield _unlabelled(pixels, rows)

    return batches


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as file:
            return np.asarray(file.convert("RGB"))
    except OSError as error:
        raise RunError(f"cannot read {path} ({error}): fetch that set again.") from error


def _noise(name: str, images: range, size: int, seed: int) -> Callable[[Place], Iterator[Pixels]]:
    def batches(place: Place) -> Iterator[Pixels]:
        for rows in _rows(images.start, images.stop, place):
            draw = philox.normal if name == "gaussian" else philox.uniform
            values = torch.from_numpy(philox.field(draw, seed, rows, 3 * size * size, 0, f"ood_{name}"))
            pixels = to_device(values.view(len(rows), 3, size, size), place.device)
            yield _unlabelled((pixels + 0.5).clamp(0, 1) if name == "gaussian" else pixels, rows)

    return batches


def _rows(first: int, last: int, place: Place) -> Iterator[np.ndarray]:
    for start in range(first + place.rank * place.batch_size, last, place.world * place.batch_size):
        yield np.arange(start, min(start + place.batch_size, last))


def _unlabelled(pixels: Tensor, rows: np.ndarray) -> Pixels:
    return Pixels(pixels, torch.zeros(len(rows), dtype=torch.int64, device=pixels.device), torch.from_numpy(rows))
