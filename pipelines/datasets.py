"""The data sets by name: where they lie, how they are normalized, and how each is opened as a Source."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fastreg.errors import InputError, unknown
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD
from fastreg.pipelines.beton import BetonSource
from fastreg.pipelines.cifar import open_cifar
from fastreg.pipelines.source import Dataset, FolderSource, Source
from fastreg.pipelines.svhn import open_svhn
from fastreg.pipelines.tar import TarSource

# Statistics of ODIN and CutMix, which the paper uses for both CIFAR sets (8-bit units over 255)
CIFAR_MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
CIFAR_STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)

DATASETS: dict[str, Dataset] = {
    "imagenet": Dataset("folder", IMAGENET_MEAN, IMAGENET_STD, classes=1000, sample=True),
    "cifar10": Dataset("cifar", CIFAR_MEAN, CIFAR_STD, classes=10, fetch=True),
    "cifar100": Dataset("cifar", CIFAR_MEAN, CIFAR_STD, classes=100, sample=True, fetch=True),
    "svhn": Dataset("svhn", CIFAR_MEAN, CIFAR_STD, classes=10, fetch=True),
    "folder": Dataset("folder", IMAGENET_MEAN, IMAGENET_STD),
}

SPLITS = ("train", "val")


def split_named(text: str) -> str | None:
    """The split that a file or folder name contains as a word: "val" in "imagenet.val.500", none in "evaluation"."""
    words = re.findall("[a-z]+", text.lower())
    return next((name for name in (*SPLITS, "test") if name in words), None)


def find(name: str, data_dir: str | Path | None = None) -> Path:
    """Find the root of a data set.

    Args:
        name: A key of ``DATASETS``.
        data_dir: The root; by default ``$FASTREG_DATA/<name>``, else ``./data/<name>``.

    Returns:
        The root, which exists.

    Raises:
        InputError: The name is unknown, or nothing lies there; the message lists the ways to get the data.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    ways = f"set `data_dir`, set FASTREG_DATA to a folder that holds {name}/, or put it at ./data/{name}"
    if DATASETS[name].fetch:
        ways += f"; `fastreg data fetch {name}` downloads it"
    if DATASETS[name].sample:
        ways += f"; `fastreg data sample {name}` writes a small one"
    if data_dir is not None:
        root = Path(data_dir)
        if not root.exists():
            raise InputError(f"no {name} data at {root}: it does not exist; {ways}.")
        return root
    candidates = [Path("data") / name]
    if os.environ.get("FASTREG_DATA"):
        candidates.insert(0, Path(os.environ["FASTREG_DATA"]) / name)
    for root in candidates:
        if root.exists():
            return root
    raise InputError(f"no {name} data found (looked at {' and '.join(map(str, candidates))}): {ways}.")


def open_dataset(name: str, split: str, data_dir: str | Path | None = None, *, beton: bool = False) -> Source:
    """Open one split of a data set; reads no image yet.

    Args:
        name: A key of ``DATASETS``.
        split: ``"train"`` or ``"val"``; ``"test"`` means ``"val"``.
        data_dir: The root folder or a ``.beton`` file; by default where ``find`` looks.
        beton: Prefer ``<split>.beton`` to class folders that lie beside it.

    Returns:
        The split as a Source.

    Raises:
        InputError: The data are missing, damaged, or not of this data set.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    split = "val" if split == "test" else split
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    spec, root = DATASETS[name], find(name, data_dir)
    if spec.layout == "cifar":
        return open_cifar(name, split, root, spec)
    if spec.layout == "svhn":
        return open_svhn(name, split, root, spec)
    kind, path = stored(root, split, beton)
    if kind == "beton":
        return BetonSource(path, name, split, spec)
    if kind == "tar":
        return TarSource(path, name, split, spec)
    return FolderSource(root, name, split, spec)


def stored(root: Path, split: str, beton: bool = False) -> tuple[str, Path]:
    """How a split of images is stored at ``root``: ("folder", "beton", "tar" or "", its path).

    Of several the first counts: class folders, ``<split>.beton``, ImageNet's tar file; with ``beton`` the file first.
    """
    there = [("folder", root / split)] if (root / split).is_dir() else []
    files = [("beton", path) for path in (root, root / f"{split}.beton") if path.suffix == ".beton" and path.is_file()]
    there = files + there if beton else there + files
    tar = root / f"ILSVRC2012_img_{split}.tar"
    return [*there, ("tar", tar) if tar.is_file() else ("", root)][0]
