"""WebDataset shards: tar files whose consecutive members of one name are a sample (``0001.jpg``, ``0001.cls``)."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.address import Shard
from fastreg.pipelines.shard_cache import ShardCache
from fastreg.pipelines.shard_index import PER_SHARD, ScannedShard, WrongKey, open_index
from fastreg.pipelines.source import Dataset, Source
from fastreg.pipelines.tar_scan import Member, member_name, scan_tar

IMAGE_KEYS = ("jpg", "jpeg", "png", "webp")
LABEL_FIELDS = ("label", "cls")  # of a sample's JSON, where there is no cls member
MAX_LABEL = 1 << 20  # bytes of a cls or json member
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")


class WebDatasetSource(Source):
    """One split in WebDataset shards; samples are ordered by shard name, then offset.

    A file ``classes.txt`` beside the shards names the classes, one per line.

    Args:
        shards: The tar files, sorted by name.
        root: The data directory as the user gave it, for messages.
        name, split, spec: Name, split and row of the data set.
        image_key: Extension of the image; by default the first of ``IMAGE_KEYS`` that a sample has.
        label_key: Extension of a member that holds the label as text, or a field of the sample's JSON; by default
            ``cls``, else the JSON fields ``label`` or ``cls``.
        cache: Local copies of remote shards.
        cache_dir: Folder of the index, if it cannot be written beside the shards.

    Attributes:
        pages: int64 [N], number of the shard of each sample.
        window: Number of shards that page order shuffles together.
        fits_cache: Whether all remote shards fit into the cache.

    Raises:
        InputError: A shard is damaged, or a sample has no image or label.
    """

    window = 16

    def __init__(
        self,
        shards: Sequence[Shard],
        root: Path | str,
        name: str,
        split: str,
        spec: Dataset,
        *,
        image_key: str | None = None,
        label_key: str | None = None,
        cache: ShardCache,
        cache_dir: str | Path | None = None,
    ):
        self.shards, self._cache = list(shards), cache

        def scan(path: Path, shard: Shard) -> ScannedShard:
            return _scan(path, shard, image_key, label_key)

        index = open_index(
            shards,
            scan,
            how=f"webdataset {image_key} {label_key}",
            what=f"{name} {split}",
            spec=spec,
            cache=cache,
            cache_dir=cache_dir,
        )
        self._index = index
        self.pages = index.shard.astype(np.int64)
        total = int(index.where[:, 1].sum())
        counts = (
            f"{len(index.labels)} images, {len(index.classes)} classes, {total} bytes, {len(self.shards)} tar shards"
        )
        super().__init__(name, split, root, spec, index.labels, index.classes, counts)
        self.fits_cache = cache.fits(self.shards)

    def content(self) -> str:
        return self._index.content

    def read(self, index: int) -> bytes:
        offset, size = self._index.where[index].tolist()
        return self._cache.read(self.shards[self._index.shard[index]], offset, size)

    def describe(self, index: int) -> str:
        shard = self.shards[self._index.shard[index]]
        try:
            return f"{shard.path}:{self.key(index)}"
        except (OSError, InputError):
            return f"{shard.path}, byte {self._index.where[index, 0]}"

    def key(self, index: int) -> str:
        descriptor = os.open(self._cache.local_path(self.shards[self._index.shard[index]]), os.O_RDONLY)
        try:
            return member_name(descriptor, int(self._index.where[index, 0]))
        finally:
            os.close(descriptor)


def _scan(path: Path, shard: Shard, image_key: str | None, label_key: str | None) -> ScannedShard:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        samples = _samples(scan_tar(descriptor, 0, os.fstat(descriptor).st_size))
        images = [_image(members, name, image_key) for name, members in samples]
        labels = [_label(descriptor, members, name, label_key) for name, members in samples]
        digest = hashlib.sha256()
        for k in np.unique(np.linspace(0, max(0, len(images) - 1), PER_SHARD).astype(int))[: len(images)]:
            digest.update(os.pread(descriptor, images[k].size, images[k].offset))
    finally:
        os.close(descriptor)
    where = np.array([(image.offset, image.size) for image in images], np.int64).reshape(-1, 2)
    return ScannedShard(where, labels, digest.hexdigest())


def _samples(members: Sequence[Member]) -> list[tuple[str, dict[str, Member]]]:
    """(name, members by extension) of every sample: consecutive members with one name before the first dot."""
    found: list[tuple[str, dict[str, Member]]] = []
    for member in members:
        matched = _NAME.fullmatch(member.name)
        if matched is None:  # hidden files, and files without an extension
            continue
        name, extension = matched[1], matched[2].lower()
        if not found or found[-1][0] != name:
            found.append((name, {}))
        if extension in found[-1][1]:
            raise ValueError(f"sample {name!r} has two members {extension!r}")
        found[-1][1][extension] = member
    return found


def _image(members: dict[str, Member], name: str, key: str | None) -> Member:
    for extension in IMAGE_KEYS if key is None else (key.lower().lstrip("."),):
        if extension in members:
            return members[extension]
    raise WrongKey(
        f"sample {name!r} has no image {' or '.join(IMAGE_KEYS) if key is None else key} but {', '.join(members)}; "
        "`image_key` names it"
    )


def _label(descriptor: int, members: dict[str, Member], name: str, key: str | None) -> Any:
    """A number, or a class name."""
    extension = "cls" if key is None else key.lower().lstrip(".")
    if extension in members and extension != "json":
        text = _content(descriptor, members[extension], name).decode("utf-8", "replace").strip()
        return _number_or_name(text, name)
    if "json" in members:
        try:
            fields = json.loads(_content(descriptor, members["json"], name))
        except (ValueError, RecursionError):
            raise ValueError(f"the JSON of sample {name!r} is damaged") from None
        for field in LABEL_FIELDS if key is None else (key,):
            if isinstance(fields, dict) and field in fields:
                return _number_or_name(fields[field], name)
    raise WrongKey(f"sample {name!r} has no label {key or 'cls'} but {', '.join(members)}; `label_key` names it")


def _content(descriptor: int, member: Member, name: str) -> bytes:
    if member.size > MAX_LABEL:
        raise ValueError(f"the label of sample {name!r} has {member.size:,} bytes")
    return os.pread(descriptor, member.size, member.offset)


def _number_or_name(value: Any, name: str) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value:
        return int(value) if re.fullmatch(r"-?[0-9]{1,30}", value) else value
    raise ValueError(f"the label of sample {name!r} is {value!r:.40}, neither a whole number nor a class name")
