"""The data sets by name: their location and normalization, and how each is opened as a Source."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD
from fastreg.pipelines.address import is_address, is_pattern, normalized
from fastreg.pipelines.beton import BetonSource
from fastreg.pipelines.cifar import open_cifar
from fastreg.pipelines.class_map import apply_class_map
from fastreg.pipelines.file_list import FileList
from fastreg.pipelines.parquet import ParquetSource
from fastreg.pipelines.remote_folder import RemoteFolderSource
from fastreg.pipelines.shard_cache import ShardCache
from fastreg.pipelines.source import Dataset, FolderSource, Source
from fastreg.pipelines.storage import SPLIT_WORDS, Stored, find_split
from fastreg.pipelines.subset import split_of
from fastreg.pipelines.svhn import open_svhn
from fastreg.pipelines.tar import TarSource
from fastreg.pipelines.webdataset import WebDatasetSource
from fastreg.shard import missing_shards

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

SPLITS = tuple(SPLIT_WORDS)


def split_named(text: str) -> str | None:
    """The split whose word a file or folder name contains: "val" in "imagenet.val.500", none in "evaluation"."""
    words = re.findall("[a-z]+", text.lower())
    return next((name for name in (*SPLITS, "test") if name in words), None)


def find(name: str, data_dir: str | Path | None = None) -> Path | str:
    """Find the root of a data set.

    Args:
        name: A key of ``DATASETS``.
        data_dir: The root; by default ``$FASTREG_DATA/<name>``, else ``./data/<name>``.

    Returns:
        The root, which exists; an address or a pattern as text, unchecked.

    Raises:
        InputError: The name is unknown, or there is no data; the message lists the ways to get it.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    ways = f"; `fastreg data fetch {name}` downloads it" if DATASETS[name].fetch else ""
    ways += f"; `fastreg data sample {name}` writes a small one" if DATASETS[name].sample else ""
    if data_dir is not None:
        text = normalized(data_dir)
        root = Path(text)
        if is_address(text) or (is_pattern(text) and not root.exists()):
            return text
        if not root.exists():
            _require_finished(root)
            raise InputError(
                f"no {name} data at {root}: it does not exist; correct `data_dir`, or leave it out to read "
                f"$FASTREG_DATA/{name} or ./data/{name}{ways}."
            )
        return root
    candidates = [Path("data") / name]
    if os.environ.get("FASTREG_DATA"):
        candidates.insert(0, Path(os.environ["FASTREG_DATA"]) / name)
    for root in candidates:
        if root.exists():
            return root
    raise InputError(
        f"no {name} data found (looked at {' and '.join(map(str, candidates))}): set `data_dir`, set FASTREG_DATA to a "
        f"folder that holds {name}/, or put it at ./data/{name}{ways}."
    )


def open_dataset(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    *,
    beton: bool = False,
    image_key: str | None = None,
    label_key: str | None = None,
    split_name: str | None = None,
    val_share: float | None = None,
    class_map: str | Path | None = None,
    cache_dir: str | Path | None = None,
    cache_gb: float | None = None,
    files: FileList | None = None,
) -> Source:
    """Open one split of a data set; reads no image of a local one yet.

    Args:
        name: A key of ``DATASETS``.
        split: ``"train"`` or ``"val"``; ``"test"`` means ``"val"``.
        data_dir: A folder (of class folders, a ``.beton`` file, ImageNet's tar files, WebDataset tar shards or parquet
            files), one such file, a pattern of shards (``{0000..1023}``, ``*``, ``{split}``), or an fsspec address of
            any of these; by default where ``find`` looks. Of several shards, those are taken whose names contain the
            split, such as ``train-0000.tar`` or ``validation-00000-of-00014.parquet``; a file ``classes.txt`` beside
            them may name the classes, one per line.
        beton: Prefer ``<split>.beton`` to class folders beside it.
        image_key: Tar shards: extension of the image; parquet: its column. By default the usual ones.
        label_key: Tar shards: extension of the label, or field of the sample's JSON; parquet: its column.
        split_name: The split's own name in the names of folders and files; by default ``train``, or ``val`` and its
            synonyms.
        val_share: For a set without a validation split: the share of its images to validate on, between 0 and 1. Each
            image's own name decides (see ``held_out``). ``split_name`` is then the name of the split to divide; class
            folders directly in ``data_dir`` are one, too.
        class_map: Numbers of the classes: ``"timm"``, ``"torchvision"`` or a file (see ``apply_class_map``).
        cache_dir: Folder for copies of remote files; by default ``$FASTREG_CACHE``, else the user's cache folder.
        cache_gb: Its limit in GB (1e9 bytes); by default ``$FASTREG_CACHE_GB``, else 100.
        files: The list of a split in class folders, if another process has made it.

    Returns:
        The split as a Source.

    Raises:
        InputError: The data are missing, damaged, or not of this data set; or an extra is not installed.
        RunError: A server does not answer, or a download fails.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    split = "val" if split == "test" else split
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    spec, root = DATASETS[name], find(name, data_dir)
    if spec.layout == "folder" and val_share is not None:
        _require_no_validation(root, split_name, val_share)
        stored_split = "train"
    else:
        stored_split = split
    source = _open(
        name,
        stored_split,
        root,
        beton=beton,
        split_name=split_name,
        bare=val_share is not None,
        keys={"image_key": image_key, "label_key": label_key},
        cache_dir=cache_dir,
        cache_gb=cache_gb,
        files=files,
    )
    if val_share is not None:
        if spec.layout != "folder":
            raise InputError(f"`val_share` is for sets without a validation split, and {name} has one: leave it out.")
        source = split_of(source, split, val_share)
    if class_map is not None:
        apply_class_map(source, class_map)
    return source


def stored_as(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings of a run that ``open_dataset`` takes for either split, by name."""
    names = ("image_key", "label_key", "val_share", "class_map", "cache_dir", "cache_gb")
    return {name: settings.get(name) for name in names}


def validation_as(settings: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """The keyword arguments of ``open_dataset`` with which the validation set of a run is opened again.

    Args:
        settings: Those of the run; empty for other data.
        given: Values other than the run's, None for the run's: ``train_split``, ``val_split``, ``val_share`` and what
            ``open_dataset`` takes.

    Raises:
        InputError: ``val_split`` with ``val_share`` or ``train_split``, or ``train_split`` without ``val_share``.
    """
    given = {name: value for name, value in given.items() if value is not None}
    named = given.get("val_split")
    if named is not None and given.keys() & {"val_share", "train_split"}:
        raise InputError(f"`val_share` divides the training split, and `val_split` is {named}: give one.")
    settings = {**settings, **({"val_share": None} if named is not None else {}), **given}
    if settings.get("val_share") is None and "train_split" in given:
        raise InputError(
            f"`train_split` {given['train_split']} is the split that `val_share` divides: give `val_share` too, or "
            "`val_split` for a whole split."
        )
    split = "val_split" if settings.get("val_share") is None else "train_split"
    return {**stored_as(settings), "split_name": settings.get(split)}


def _require_finished(path: Path) -> None:
    """Raise InputError for a ``.beton`` file of which only shards exist."""
    if not path.exists() and (missing := missing_shards(path)):
        raise InputError(
            f"{path} is not finished: run {'shard' if len(missing) == 1 else 'shards'} {', '.join(missing)} of the "
            f"same `fastreg data prepare` command."
        )


def _require_no_validation(root: Path | str, split_name: str | None, val_share: float) -> None:
    if not 0 < val_share < 1:
        raise InputError(f"`val_share` is {val_share:g}: give a share between 0 and 1.")
    train, val = find_split(root, "train", called=split_name), find_split(root, "val")
    if val.kind and (val.path, val.files) != (train.path, train.files):
        raise InputError(
            f"{root} has a validation split ({val.files[0].name if val.files else val.path}): leave out `val_share`, "
            "or give the split's name as `val_split`."
        )


def _open(
    name: str,
    split: str,
    root: Path | str,
    *,
    beton: bool,
    split_name: str | None,
    bare: bool,
    keys: dict[str, str | None],
    cache_dir: str | Path | None,
    cache_gb: float | None,
    files: FileList | None,
) -> Source:
    """The whole stored split; ``bare``: also class folders directly in ``root``, as the training split."""
    spec = DATASETS[name]
    if spec.layout in ("cifar", "svhn"):
        if not isinstance(root, Path):
            raise InputError(f"{name} is read from a local folder, and `data_dir` is {root}: download it first.")
        return (open_cifar if spec.layout == "cifar" else open_svhn)(name, split, root, spec)
    stored = find_split(root, split, beton, split_name)
    cache = ShardCache(cache_dir, cache_gb)
    folders: dict[str, Any] = {"files": files, "cache_dir": cache_dir}
    if stored.kind == "beton":
        path = cache.local_path(stored.files[0]) if stored.files else Path(stored.path)
        return BetonSource(path, name, split, spec)
    if stored.kind == "imagenet-tar":
        return TarSource(Path(stored.path), name, split, spec)
    if stored.kind == "webdataset":
        return WebDatasetSource(stored.files, root, name, split, spec, **keys, cache=cache, cache_dir=cache_dir)
    if stored.kind == "parquet":
        return ParquetSource(stored.files, root, name, split, spec, **keys, cache=cache, cache_dir=cache_dir)
    if is_address(str(root)) and stored.kind == "folder":
        return RemoteFolderSource(str(stored.path), str(root), name, split, spec, cache=cache)
    if stored.kind == "folder":
        folder = Path(stored.path)
        return FolderSource(folder.parent, name, split, spec, folder=folder, **folders)
    if isinstance(root, str):
        raise InputError(f"`data_dir` {root} stands for no {split_name or split} data: correct it.")
    if split_name is not None:
        raise InputError(f"{root} has no split {split_name!r}: give the name of a folder or of shards in it.")
    _require_finished(root / f"{split}.beton")
    return FolderSource(root, name, split, spec, folder=root if bare and root.is_dir() else None, **folders)


def stored_splits(root: Path | str) -> dict[str, Stored]:
    """The splits at a root, and the storage of each."""
    found = {split: find_split(root, split) for split in SPLITS}
    return {split: stored for split, stored in found.items() if stored.kind}
