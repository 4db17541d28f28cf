"""Out-of-distribution detection by the largest softmax probability (the paper's last column).

Seven sets, as ODIN (Liang et al. 2018) built them: Tiny ImageNet and LSUN, cropped and resized, iSUN, and two noises.
The noises are drawn, as many images as the data has and at most 10 000 (Gaussian: N(0.5, 1) clipped to [0, 1]; uniform
on [0, 1]); the five photograph sets are read from ``<ood folder>/<set>/**`` and are never replaced by others when they
are missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import InputError, RunError
from fastreg.evaluation.canvas import Pixels, sent
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.subject import Subject
from fastreg.evaluation.suites import NOISES, PHOTOGRAPHS
from fastreg.kernels import philox
from fastreg.pipelines.source import fingerprint_of

if TYPE_CHECKING:
    from fastreg.evaluation.plan import Options, Place, Step

NOISE_IMAGES = 10_000
_TUNING = 1000  # ODIN's drivers keep the first thousand of each set for tuning


def steps(subject: Subject, options: Options) -> tuple[dict[str, Any], dict[str, Step]]:
    """One step per set that is there.

    Raises InputError when a folder was named and holds none, or a set ends within ODIN's tuning images.
    """
    from fastreg.evaluation.plan import Step

    root = options.ood_dir or Path(os.environ.get("FASTREG_DATA", "data")) / "ood"
    first = _TUNING if options.odin_split else 0
    found = {}
    for name, folders in PHOTOGRAPHS.items():
        files = next((f for f in (_images(Path(root) / folder) for folder in folders) if f), None)
        if files:
            _enough(len(files), first, files[0].parent)
            # some archives have a border, which is cropped off
            extra = {"stored_px": _side(files[0]), "fingerprint": _fingerprint(files)}
            found[name] = Step(
                on_pixels, _photographs(files[first:], subject.size), len(files) - first, extra, out=True
            )
    if options.ood_dir is not None and not found:
        own = _images(Path(root))
        if not own:
            raise InputError(f"{root} holds no images: put sets in folders named {', '.join(PHOTOGRAPHS)}.")
        extra = {"fingerprint": _fingerprint(own)}
        found[Path(root).name] = Step(on_pixels, _photographs(own, subject.size), len(own), extra, out=True)
    last = min(NOISE_IMAGES, len(subject))
    _enough(last, first, "the data")
    for name in NOISES:
        drawn = _noise(name, range(first, last), subject.size, options.seed)
        found[name] = Step(on_pixels, drawn, last - first, out=True)
    return {"score": "largest softmax probability", "folder": str(root), "first": first}, found


def _enough(n: int, first: int, what: object) -> None:
    if first and n <= first:
        raise InputError(
            f"--odin-split leaves out the first {first:,} images, but {what} has only {n:,}: leave the flag out."
        )


def on_pixels(classifier: Classifier, batch: Pixels) -> Tensor:
    """The sets are float32 pixels [B, 3, S, S] already."""
    return classifier.pixels(batch.images)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in (".png", ".jpg", ".jpeg"))


def _fingerprint(files: list[Path]) -> str:
    return fingerprint_of((), [[(path.name, path.stat().st_size) for path in files]])


def _side(path: Path) -> int:
    from PIL import Image

    try:
        with Image.open(path) as file:
            return file.size[0]
    except OSError as error:
        raise RunError(f"cannot read {path} ({error}): fetch that set again.") from error


def _photographs(files: list[Path], size: int) -> Callable[[Place], Iterator[Pixels]]:
    """PNG or JPEG files of the model's size; larger squares up to 1.25 times are cropped at the centre (a border)."""

    def batches(place: Place) -> Iterator[Pixels]:
        for rows in _rows(0, len(files), place):
            images = np.stack([_read(files[i], size) for i in rows])
            pixels = sent(torch.from_numpy(images), place.device).permute(0, 3, 1, 2).float() / 255
            yield _unlabelled(pixels, rows)

    return batches


def _read(path: Path, size: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB"))
    except OSError as error:
        raise RunError(f"cannot read {path} ({error}): fetch that set again.") from error
    height, width = image.shape[:2]
    if height != width or not size <= height <= 1.25 * size:
        raise InputError(f"{path} is {width} x {height} px, not {size}: these sets are made for one size.")
    low = (height - size) // 2
    return image[low : low + size, low : low + size]


def _noise(name: str, images: range, size: int, seed: int) -> Callable[[Place], Iterator[Pixels]]:
    def batches(place: Place) -> Iterator[Pixels]:
        for rows in _rows(images.start, images.stop, place):
            draw = philox.normal if name == "gaussian" else philox.uniform
            values = torch.from_numpy(philox.field(draw, seed, rows, 3 * size * size, 0, f"ood_{name}"))
            pixels = sent(values.view(len(rows), 3, size, size), place.device)
            yield _unlabelled((pixels + 0.5).clamp(0, 1) if name == "gaussian" else pixels, rows)

    return batches


def _rows(first: int, last: int, place: Place) -> Iterator[np.ndarray]:
    for start in range(first + place.rank * place.batch_size, last, place.world * place.batch_size):
        yield np.arange(start, min(start + place.batch_size, last))


def _unlabelled(pixels: Tensor, rows: np.ndarray) -> Pixels:
    return Pixels(pixels, torch.zeros(len(rows), dtype=torch.int64, device=pixels.device), torch.from_numpy(rows))
