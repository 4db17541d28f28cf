"""The index of a set of shards: location and label of every sample; made once and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastreg.errors import InputError, RunError
from fastreg.files import atomic_write
from fastreg.log import log
from fastreg.pipelines.address import RemoteFiles, Shard, is_address, local_shard
from fastreg.pipelines.shard_cache import ShardCache, cache_folder
from fastreg.pipelines.source import MAX_CLASSES, Dataset
from fastreg.progress import progress

VERSION = 1
MAX_LIST = 1 << 26  # bytes of classes.txt
PER_SHARD = 4  # samples of each shard whose bytes enter the set's fingerprint


class WrongKey(ValueError):
    """A shard has no image or label under the given key, or under any of the usual keys."""


class ScannedShard(NamedTuple):
    """The data that an index keeps for one shard."""

    where: np.ndarray  # int64 [n, 2]: offset and size of each image; or its row group and row
    labels: Sequence[int | str]  # numbers or class names
    content: str  # hexadecimal digest of some of the images
    classes: Sequence[str] = ()  # class names, if the shard stores them


class ShardIndex(NamedTuple):
    """The location and the label of every sample of a set of shards.

    Attributes:
        shard: int32 [N], number of the shard.
        where: int64 [N, 2], as in ``ScannedShard``.
        labels: int64 [N].
        classes: Class names; the index is the label.
        content: Hexadecimal digest of names, sizes, labels and some of the images.
    """

    shard: np.ndarray
    where: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    content: str


def open_index(
    shards: Sequence[Shard],
    scan: Callable[[Path, Shard], ScannedShard],
    *,
    how: str,
    what: str,
    spec: Dataset,
    cache: ShardCache,
    cache_dir: str | Path | None,
) -> ShardIndex:
    """Read the index of some shards, or make it and keep it.

    The index is stored beside local shards if that folder can be written, otherwise in the user's cache folder. It is
    made again when a shard changes.

    Args:
        shards: The shards, in order.
        scan: Reads one shard's local copy. It raises ValueError or OSError for a damaged one.
        how: Kind of the shards and keys of image and label; another value needs another index.
        what: Name and split, for the progress bar.
        spec: The data set.
        cache: Local copies of remote shards.
        cache_dir: Folder of indexes that cannot be written beside the shards; by default the user's cache folder.

    Raises:
        InputError: A shard is damaged, or its labels are unusable.
    """
    names = hashlib.sha256("\0".join([how, *(shard.path for shard in shards)]).encode()).hexdigest()[:16]
    listed = _class_list(shards[0], cache)
    state = json.dumps([VERSION, how, spec.classes, listed, [[one.name, one.size, one.token] for one in shards]])
    key = hashlib.sha256(state.encode()).hexdigest()
    folders = [cache_folder(cache_dir) / "indexes"]
    if not is_address(shards[0].path):
        folders.insert(0, Path(shards[0].path).parent)
    paths = [folder / f".fastreg-index-{names}" for folder in folders]
    for path in paths:
        index = _load(path, key, len(shards))
        if index is not None:
            return index
    index = _make(shards, scan, what, spec, cache, listed)
    for path in paths:
        try:
            atomic_write(path, b"".join(_packed(index, key)))
            break
        except RunError as error:
            log.debug("%s", error)
    return index


def _make(
    shards: Sequence[Shard],
    scan: Callable[[Path, Shard], ScannedShard],
    what: str,
    spec: Dataset,
    cache: ShardCache,
    listed: Sequence[str],
) -> ShardIndex:
    scanned = []
    with progress(f"index {what}", len(shards)) as bar:
        for shard in shards:
            try:
                scanned.append(scan(cache.local_path(shard), shard))
            except (OSError, ValueError) as error:
                if isinstance(error, InputError):
                    raise
                if isinstance(error, WrongKey):
                    raise InputError(f"{shard.path}: {error}.") from None
                why = getattr(error, "strerror", None) or str(error).split("\n")[0].rstrip(".")
                raise InputError(f"cannot read {shard.path}: {why}; replace it.") from None
            bar.advance(1)
    counts = [len(one.labels) for one in scanned]
    if not sum(counts):
        raise InputError(f"{shards[0].path}{' and the other shards' if len(shards) > 1 else ''} holds no samples.")
    labels, classes = _numbered(shards, scanned, spec, listed)
    where = np.concatenate([one.where for one in scanned]).astype(np.int64)
    digest = hashlib.sha256(json.dumps([shard.name for shard in shards]).encode())
    for content in (labels.tobytes(), where.tobytes(), *(one.content.encode() for one in scanned)):
        digest.update(content)
    numbers = np.repeat(np.arange(len(shards), dtype=np.int32), counts)
    return ShardIndex(numbers, where, labels, classes, digest.hexdigest())


def _class_list(shard: Shard, cache: ShardCache) -> list[str]:
    """The class names in ``classes.txt`` beside a shard, one per line; none if there is no such file."""
    path = f"{shard.path.rpartition('/')[0] or '.'}/classes.txt"
    if is_address(path):
        listed = RemoteFiles(path).describe(path)
    else:
        listed = local_shard(path) if os.path.isfile(path) else None
    if listed is None:
        return []
    try:
        if listed.size > MAX_LIST:
            raise ValueError(f"it has {listed.size:,} bytes")
        names = cache.local_path(listed).read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} as a list of class names ({error}): correct or remove it.") from None
    return names[:MAX_CLASSES]


def _numbered(
    shards: Sequence[Shard], scanned: Sequence[ScannedShard], spec: Dataset, listed: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(labels int64 [N], class names). Names are numbered in listed or sorted order; numbers are kept."""
    kinds = {type(label) for one in scanned for label in one.labels}
    classes: Sequence[str] = listed
    if kinds == {str}:
        classes = listed or sorted({str(label) for one in scanned for label in one.labels})
        number = {name: k for k, name in enumerate(classes)}
        if len(number) < len(classes):
            twice = next(name for name, count in Counter(classes).items() if count > 1)
            raise InputError(
                f"classes.txt beside {shards[0].path} has {twice!r} twice, and labels are names: correct it."
            )
        for shard, one in zip(shards, scanned):
            strange = next((label for label in one.labels if label not in number), None)
            if strange is not None:
                raise InputError(f"{shard.path} has label {strange!r}, which classes.txt does not list: correct one.")
        return np.array([number[str(label)] for one in scanned for label in one.labels], np.int64), tuple(classes)
    if kinds != {int}:
        raise InputError(f"the labels of {shards[0].path} and its neighbors are partly numbers, partly names: use one.")
    classes = classes or next((one.classes for one in scanned if one.classes), ())
    for shard, one in zip(shards, scanned):
        if one.classes and not listed and tuple(one.classes) != tuple(classes):
            raise InputError(f"{shard.path} stores other class names than the shards before it: write it anew.")
    most = len(classes) or spec.classes or MAX_CLASSES
    for shard, one in zip(shards, scanned):
        wrong = next((k for k, label in enumerate(one.labels) if not 0 <= int(label) < most), None)
        if wrong is not None:
            raise InputError(
                f"{shard.path} has label {one.labels[wrong]} at sample {wrong}, and labels are 0 to {most - 1:,}: "
                "correct it, or set `label_key`."
            )
    labels = np.array([label for one in scanned for label in one.labels], np.int64)
    return labels, tuple(classes or map(str, range(spec.classes or int(labels.max()) + 1)))


def _packed(index: ShardIndex, key: str) -> Iterator[bytes]:
    """Write the index file: one line of JSON, then the three arrays."""
    about = {"key": key, "samples": len(index.labels), "classes": index.classes, "content": index.content}
    yield json.dumps(about).encode() + b"\n"
    yield index.shard.astype("<i4").tobytes()
    yield index.where.astype("<i8").tobytes()
    yield index.labels.astype("<i8").tobytes()


def _load(path: Path, key: str, shards: int) -> ShardIndex | None:
    """The index in a file; None if it is missing, of other shards, or damaged."""
    try:
        with open(path, "rb") as file:
            about = json.loads(file.readline(1 << 26))
            if about["key"] != key:
                return None
            n = int(about["samples"])
            if n < 1 or os.fstat(file.fileno()).st_size - file.tell() != 28 * n:
                return None
            shard = np.frombuffer(file.read(4 * n), "<i4")
            where = np.frombuffer(file.read(16 * n), "<i8").reshape(n, 2)
            labels = np.frombuffer(file.read(8 * n), "<i8")
            classes = tuple(map(str, about["classes"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    sound = shard.min() >= 0 and shard.max() < shards and where.min() >= 0
    sound = sound and labels.min() >= 0 and labels.max() < len(classes)
    return ShardIndex(shard, where, labels, classes, str(about["content"])) if sound else None
