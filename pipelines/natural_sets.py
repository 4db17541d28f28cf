"""Natural test sets with ImageNet's classes: their addresses, and the names of their folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.errors import InputError


class NaturalSet(NamedTuple):
    """One set.

    Attributes:
        images: Number of images; of ObjectNet those of the 113 classes that ImageNet has.
        classes: Number of classes that are measured.
        address: Where the archive is had.
        archive: Name and size of the archive.
        folders: The folder of the class folders, as the archives and their mirrors unpack.
    """

    images: int
    classes: int
    address: str
    archive: str
    folders: tuple[str, ...]


_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks/"
_V2 = "https://huggingface.co/datasets/vaishaal/ImageNetV2"


def _v2(name: str, size: str, *further: str) -> NaturalSet:
    folders = (f"imagenetv2-{name}-format-val", f"imagenetv2-{name}", *further)
    return NaturalSet(10_000, 1000, _V2, f"imagenetv2-{name}.tar.gz, {size}", folders)


NATURAL_SETS: dict[str, NaturalSet] = {
    "imagenet-a": NaturalSet(
        7_500, 200, f"{_HENDRYCKS}imagenet-a.tar", "imagenet-a.tar, 0.69 GB", ("imagenet-a", "imagenet_a")
    ),
    "imagenet-r": NaturalSet(
        30_000, 200, f"{_HENDRYCKS}imagenet-r.tar", "imagenet-r.tar, 2.19 GB", ("imagenet-r", "imagenet_r")
    ),
    "imagenet-sketch": NaturalSet(
        50_889,
        1000,
        "https://github.com/HaohanWang/ImageNet-Sketch",
        "ImageNet-Sketch.zip, 7.8 GB",
        ("sketch", "imagenet-sketch", "imagenet-sketch/sketch", "imagenet_sketch", "ImageNet-Sketch/sketch"),
    ),
    "imagenetv2-matched-frequency": _v2("matched-frequency", "1.26 GB"),
    "imagenetv2-threshold0.7": _v2("threshold0.7", "1.25 GB"),
    "imagenetv2-top-images": _v2("top-images", "1.25 GB", "imagenetv2-topimages"),
    "objectnet": NaturalSet(
        18_574,
        113,
        "https://objectnet.dev/download.html",
        "objectnet-1.0.zip, with a password that the page gives",
        ("objectnet-1.0/images", "objectnet/images", "objectnet"),
    ),
}


def set_roots(data_dir: str | Path | None = None) -> list[Path]:
    """Folders that may hold the sets: ``data_dir`` and the folder that it is in; then $FASTREG_DATA and ./data."""
    given = [] if data_dir is None else [Path(data_dir), Path(data_dir).absolute().parent]
    own = [Path(os.environ["FASTREG_DATA"])] if os.environ.get("FASTREG_DATA") else []
    return [*given, *own, Path("data")]


def find_set(name: str, roots: Sequence[Path]) -> Path | None:
    """The folder of a set's class folders; None if it is in none of the roots. A root may be that folder itself."""
    folders = NATURAL_SETS[name].folders
    for root in roots:
        for folder in folders:
            if (root / folder).is_dir() and _has_folders(root / folder):
                return root / folder
            if root.absolute().parts[-len(Path(folder).parts) :] == Path(folder).parts and _has_folders(root):
                return root
    return None


def _has_folders(path: Path) -> bool:
    return path.is_dir() and any(entry.is_dir() for entry in os.scandir(path))


def how_to_get(name: str) -> str:
    """One clause: the address, the archive with its size, and the folder."""
    row = NATURAL_SETS[name]
    return f"get it from {row.address} ({row.archive}) and unpack it as {row.folders[0]}/"


def require_set(name: str, data_dir: str | Path | None = None) -> Path:
    """The folder of a set. Raises InputError with the address of the set."""
    roots = set_roots(data_dir)
    path = find_set(name, roots)
    if path is None:
        where = ", ".join(str(root) for root in roots)
        raise InputError(f"no {name} in {where}: {how_to_get(name)} in one of these folders.")
    return path


def natural_info(data_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """A row per set: ``set``, ``images``, ``classes``, ``address``, ``archive``, ``folder``, ``found`` (a path)."""
    roots = set_roots(data_dir)
    rows: list[dict[str, Any]] = []
    for name, row in NATURAL_SETS.items():
        place = {"address": row.address, "archive": row.archive, "folder": row.folders[0]}
        rows.append({"set": name, "images": row.images, "classes": row.classes, **place})
        rows[-1]["found"] = find_set(name, roots)
    return rows
