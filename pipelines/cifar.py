"""CIFAR-10 and CIFAR-100 from their python pickles; the unpickler admits arrays and plain containers only."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.errors import InputError
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

# What the pickle of a numpy array may call, by the names that numpy 1 and 2 and Python 2 and 3 wrote.
_reconstruct, _frombuffer = np._core.multiarray._reconstruct, np._core.numeric._frombuffer  # type: ignore[attr-defined]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _latin1,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR pickle, keys as text. Raises InputError for all but arrays and plain containers."""
    try:
        with open(path, "rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
    except FileNotFoundError:
        raise InputError(f"{path} is missing: unpack the whole CIFAR archive there.") from None
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} is refused as a CIFAR pickle ({error}): fetch the data set anew.") from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise InputError(f"{path} cannot be read as a CIFAR pickle ({error!r}): fetch the data set anew.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not CIFAR's dictionary: fetch the data set anew.")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in content.items()}


class ArraySource(Source):
    """A whole split of small images in memory: ``images`` uint8 [N, H, W, 3]."""

    def __init__(self, images: np.ndarray, *about):
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
        digest = hashlib.sha256(self.images)
        digest.update(self.labels)
        return digest.hexdigest()


def open_cifar(name: str, split: str, root: Path, spec: Dataset) -> ArraySource:
    """CIFAR arrays at ``root`` (the folder of the pickles or its parent); split "val" is CIFAR's test set."""
    folder, files, meta, label_key, name_key = _LAYOUT[name]
    base = root / folder if (root / folder).is_dir() else root
    images, labels = [], []
    for file in files[split]:
        content = load_pickle(base / file)
        data, fine = content.get("data"), content.get(label_key)
        rows = len(fine) if isinstance(fine, (list, np.ndarray)) else -1
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (rows, 3072):
            raise InputError(f"{base / file} lacks matching 'data' (uint8 [N, 3072]) and {label_key!r}: fetch it anew.")
        images.append(data.reshape(rows, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.asarray(fine, np.int64))
    classes = [x.decode() if isinstance(x, bytes) else str(x) for x in load_pickle(base / meta).get(name_key, [])]
    stacked = np.ascontiguousarray(np.concatenate(images))
    counts = f"{len(stacked)} images, {len(classes)} classes"
    return ArraySource(stacked, name, split, root, spec, np.concatenate(labels), classes, counts)
