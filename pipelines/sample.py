"""A small data set of real images in the layouts of ImageNet and CIFAR-100: crops of scikit-image's example images.

Each class is one image, split by a straight line: training crops come from one side, validation crops from the other,
so that no pixel is in both.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from fastreg.errors import InputError, RunError, extra, unknown
from fastreg.kernels import philox
from fastreg.pipelines.source import MARKER
from fastreg.progress import progress

# class name: (file in scikit-image, whether the dividing line is vertical, share of the training side).
# The lines are chosen so that both sides look alike.
SAMPLE_IMAGES: dict[str, tuple[str, bool, float]] = {
    "brick": ("brick.png", True, 0.65),
    "cat": ("chelsea.png", True, 0.6),
    "coffee": ("coffee.png", True, 0.55),
    "coins": ("coins.png", True, 0.6),
    "galaxies": ("hubble_deep_field.jpg", True, 0.65),
    "grass": ("grass.png", True, 0.65),
    "gravel": ("gravel.png", True, 0.65),
    "moon": ("moon.png", False, 0.6),
    "motorcycle": ("motorcycle_left.png", True, 0.6),
    "retina": ("retina.jpg", False, 0.6),
    "rocket": ("rocket.jpg", True, 0.6),
    "tissue": ("ihc.png", True, 0.6),
}
SEED = 20
COUNTS = {"imagenet": {"train": 48, "val": 10}, "cifar100": {"train": 120, "val": 20}}
SIDES = (200, 500)


def write_sample(name: str, out: str | Path | None = None) -> dict[str, Any]:
    """Write a small data set of real images. Deterministic; the folder appears whole or not at all.

    Args:
        name: ``"imagenet"`` (class folders of JPEG files) or ``"cifar100"`` (pickles).
        out: Folder to write; by default ``./data/<name>``. An existing sample is replaced.

    Returns:
        {"path", "classes", "train", "val"}: the folder, and numbers of classes and images.

    Raises:
        InputError: ``out`` holds something else, or scikit-image is missing.
        RunError: The folder cannot be written.
    """
    if name not in COUNTS:
        raise unknown("sample", name, COUNTS)
    out = Path(out) if out is not None else Path("data") / name
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / MARKER).is_file():
        raise InputError(
            f"{out} already holds something that is not a sample: set `out` to another folder, or empty it."
        )
    images = {label: _regions(*row) for label, row in SAMPLE_IMAGES.items()}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise RunError(f"cannot write to {out.parent}: {error.strerror}; set `out` to a writable folder.") from None
    try:
        staged.chmod(0o755)
        counts = {split: n * len(SAMPLE_IMAGES) for split, n in COUNTS[name].items()}
        with progress(f"sample {name}", sum(counts.values())) as bar:
            (_write_imagenet if name == "imagenet" else _write_cifar100)(staged, images, bar.advance)
        about = {
            "name": name,
            "source": "scikit-image's example images",
            "classes": list(SAMPLE_IMAGES),
            "images": counts,
        }
        (staged / MARKER).write_text(json.dumps(about, indent=1) + "\n")
        if out.exists():
            shutil.rmtree(out)
        os.replace(staged, out)
    except OSError as error:
        raise RunError(f"cannot write the sample to {out}: {error.strerror}; free some space, or set `out`.") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return {"path": str(out), "classes": len(SAMPLE_IMAGES), **counts}


def _regions(file: str, vertical: bool, share: float) -> dict[str, Image.Image]:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise InputError(f"the sample needs scikit-image's example images: {extra('sample')}.")
    path = Path(spec.origin).parent / "data" / file
    if not path.is_file():
        raise InputError(f"scikit-image has no image {path}: install another version (0.25 has it).")
    image = Image.open(path).convert("RGB")
    w, h = image.size
    x, y = (round(w * share), h) if vertical else (w, round(h * share))
    rest = (x, 0, w, h) if vertical else (0, y, w, h)
    return {"train": image.crop((0, 0, x, y)), "val": image.crop(rest)}


def _cut(region: Image.Image, label: int, index: int, split: str, sides: tuple[int, int]) -> Image.Image:
    """Crop ``index`` of a region: both output sides in ``sides`` within ratio 3/4-4/3, from 20-100 % of what fits."""
    words = philox.words(SEED, [0, 1], label * 100_000 + index, split == "val", "crop")
    u = philox.uniform(words).astype(np.float64).ravel()
    low, high = sides
    width = low + int(u[0] * (high - low + 1))
    height = int(np.clip(width * 0.75 ** (2 * u[1] - 1), low, high)) if high > low else low
    most = min(region.width / width, region.height / height)
    scale = most * np.sqrt(0.2 + 0.8 * u[2])
    w, h = max(1, int(width * scale)), max(1, int(height * scale))
    left, top = int(u[3] * (region.width - w + 1)), int(u[4] * (region.height - h + 1))
    return region.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))


Regions = dict[str, dict[str, Image.Image]]


def _write_imagenet(root: Path, images: Regions, advance: Callable[[int], None]) -> None:
    for split, count in COUNTS["imagenet"].items():
        for label, (name, regions) in enumerate(images.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                buffer = io.BytesIO()
                _cut(regions[split], label, index, split, SIDES).save(buffer, "JPEG", quality=90)
                (folder / f"{name}_{index:04d}.JPEG").write_bytes(buffer.getvalue())
                advance(1)


def _write_cifar100(root: Path, images: Regions, advance: Callable[[int], None]) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir()
    names = [name.encode() for name in images]
    _pickle2(folder / "meta", {b"fine_label_names": names, b"coarse_label_names": names})
    for split, file in (("train", "train"), ("val", "test")):
        count = COUNTS["cifar100"][split]
        rows, labels, files = [], [], []
        for index in range(count):  # classes alternate: labels of the published files are in no order either
            for label, (name, regions) in enumerate(images.items()):
                cut = np.asarray(_cut(regions[split], label, index, split, (32, 32)))
                rows.append(cut.transpose(2, 0, 1).ravel())
                labels.append(label)
                files.append(f"{name}_s_{index:06d}.png".encode())
                advance(1)
        content = {
            b"filenames": files,
            b"batch_label": f"{split} batch 1 of 1".encode(),
            b"fine_labels": labels,
            b"coarse_labels": labels,
            b"data": np.stack(rows),
        }
        _pickle2(folder / file, content)


_Pickler: Any = pickle._Pickler  # the Python implementation, whose table of types can be changed


class _Python2Pickler(_Pickler):
    """Writes bytes as Python 2's str, as in the published CIFAR files, so that common readers accept them."""

    dispatch: ClassVar[dict] = dict(_Pickler.dispatch)

    def save_string(self, value: bytes) -> None:
        if len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value)
        else:
            self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_string


def _pickle2(path: Path, content: dict) -> None:
    with open(path, "wb") as file:
        _Python2Pickler(file, protocol=2).dump(content)
