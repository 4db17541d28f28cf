"""The data sets by name: where they lie, how they are normalised, and how each is opened as a Source."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from fastreg.errors import InputError, unknown
from fastreg.pipelines.source import Source


class Dataset(NamedTuple):
    """What holds for a data set wherever it lies; ``mean`` and ``std`` are RGB on the 0-1 scale."""

    layout: str  # "folder" (class folders or a .beton), "cifar" (python pickles) or "svhn" (MATLAB files)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: int | None = None  # of the full set; None: whatever lies there
    sample: bool = False  # `fastreg data sample` can write a small one
    fetch: bool = False  # `fastreg data fetch` can download it


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# ODIN's and CutMix's statistics, which the paper uses for both CIFAR sets (8-bit units over 255)
_CIFAR = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)

DATASETS: dict[str, Dataset] = {
    "imagenet": Dataset("folder", *_IMAGENET, classes=1000, sample=True),
    "cifar10": Dataset("cifar", *_CIFAR, classes=10, fetch=True),
    "cifar100": Dataset("cifar", *_CIFAR, classes=100, sample=True, fetch=True),
    "svhn": Dataset("svhn", *_CIFAR, classes=10, fetch=True),
    "folder": Dataset("folder", *_IMAGENET),
}

SPLITS = ("train", "val")


def split_named(text: str) -> str | None:
    """The split that a file's or folder's name says as a word: "val" of "imagenet.val.500", none of "evaluation"."""
    words = re.findall("[a-z]+", text.lower())
    return next((name for name in (*SPLITS, "test") if name in words), None)


def find(name: str, data_dir: str | Path | None = None) -> Path:
    """The root of data set ``name``: ``data_dir``, else ``$FASTREG_DATA/<name>``, else ``./data/<name>``.

    Raises InputError when the name is unknown or nothing lies there; the message names the ways to give one.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    ways = f"give --data-dir DIR, set FASTREG_DATA to a folder that holds {name}/, or put it at ./data/{name}"
    if DATASETS[name].fetch:
        ways += f"; `fastreg data fetch {name}` downloads it"
    if DATASETS[name].sample:
        ways += f"; `fastreg data sample {name}` writes a small one"
    if data_dir is not None:
        root = Path(data_dir)
        if not root.exists():
            raise InputError(f"no {name} data at {root}: it does not exist; {ways}.")
        return root
    places = [Path("data") / name]
    if os.environ.get("FASTREG_DATA"):
        places.insert(0, Path(os.environ["FASTREG_DATA"]) / name)
    for root in places:
        if root.exists():
            return root
    raise InputError(f"no {name} data found (looked at {' and '.join(map(str, places))}): {ways}.")


def open_dataset(name: str, split: str, data_dir: str | Path | None = None, *, beton: bool = False) -> Source:
    """Open one split ("train" or "val"; "test" means "val") of a data set as a Source; reads no image yet.

    ``data_dir`` may also be a ``.beton`` file. Where class folders and ``<split>.beton`` lie side by side the folders
    are taken, with ``beton`` the file. Raises InputError when it is not there or not what it should be.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    split = "val" if split == "test" else split
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    spec, root = DATASETS[name], find(name, data_dir)
    if spec.layout == "cifar":
        from fastreg.pipelines.cifar import open_cifar

        return open_cifar(name, split, root, spec)
    if spec.layout == "svhn":
        from fastreg.pipelines.svhn import open_svhn

        return open_svhn(name, split, root, spec)
    kind, path = stored(root, split, beton)
    if kind == "beton":
        from fastreg.pipelines.beton import BetonSource

        return BetonSource(path, name, split, spec)
    if kind == "tar":
        from fastreg.pipelines.tar import TarSource

        return TarSource(path, name, split, spec)
    from fastreg.pipelines.source import FolderSource

    return FolderSource(root, name, split, spec)


def stored(root: Path, split: str, beton: bool = False) -> tuple[str, Path]:
    """How a split of images lies at ``root``: ("folder" | "beton" | "tar" | "", where), the first of several.

    Class folders come first, with ``beton`` the file.
    """
    there = [("folder", root / split)] if (root / split).is_dir() else []
    files = [("beton", path) for path in (root, root / f"{split}.beton") if path.suffix == ".beton" and path.is_file()]
    there = files + there if beton else there + files
    tar = root / f"ILSVRC2012_img_{split}.tar"
    return [*there, ("tar", tar) if tar.is_file() else ("", root)][0]
