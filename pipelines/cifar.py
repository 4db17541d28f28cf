"""CIFAR-10 and CIFAR-100 from their pickles, as a split in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.cifar_pickle import load_pickle
from fastreg.pipelines.source import Dataset, Source

# folder, files of each split, meta file, label key, name key
_LAYOUT: dict[str, tuple[str, dict[str, tuple[str, ...]], str, str, str]] = {
    "cifar10": (
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "val": ("test_batch",)},
        "batches.meta",
        "labels",
        "label_names",
    ),
    "cifar100": (
        "cifar-100-python",
        {"train": ("train",), "val": ("test",)},
        "meta",
        "fine_labels",
        "fine_label_names",
    ),
}


class ArraySource(Source):
    """A whole split of small images in memory: ``images`` uint8 [N, H, W, 3]."""

    def __init__(self, images: np.ndarray, *about: Any):
        self.images = images
        super().__init__(*about)
        self.canvas = images.shape[1], images.shape[2]

    @property
    def form(self) -> str:
        return "arrays"

    def read(self, index: int) -> np.ndarray:
        return self.images[index]

    def gather(self, indices: np.ndarray, out: np.ndarray) -> None:
        np.take(self.images, indices, axis=0, out=out, mode="clip")

    def content(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def open_cifar(name: str, split: str, root: Path, spec: Dataset) -> ArraySource:
    """Open CIFAR at ``root`` (the folder of the pickles or its parent); split "val" is CIFAR's test set."""
    folder, files, meta, label_key, name_key = _LAYOUT[name]
    base = root / folder if (root / folder).is_dir() else root
    images, labels = [], []
    for file in files[split]:
        content = load_pickle(base / file)
        data, fine = content.get("data"), _whole_numbers(content.get(label_key))
        rows = -1 if fine is None else len(fine)
        if fine is None or not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (rows, 3072):
            raise InputError(f"{base / file} lacks matching 'data' (uint8 [N, 3072]) and {label_key!r}: fetch it anew.")
        images.append(data.reshape(rows, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(fine)
    names = load_pickle(base / meta).get(name_key)
    if not isinstance(names, list) or not all(isinstance(one, bytes | str) for one in names):
        raise InputError(f"{base / meta} lacks the class names {name_key!r}: fetch it anew.")
    classes = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in names]
    stacked = np.ascontiguousarray(np.concatenate(images))
    counts = f"{len(stacked)} images, {len(classes)} classes"
    return ArraySource(stacked, name, split, root, spec, np.concatenate(labels), classes, counts)


def _whole_numbers(values: object) -> np.ndarray | None:
    """A list or vector of whole numbers as int64 [N]; None for anything else."""
    if isinstance(values, list) and all(type(value) is int and -(2**62) < value < 2**62 for value in values):
        return np.array(values, np.int64)
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu":
        return values.astype(np.int64)
    return None
