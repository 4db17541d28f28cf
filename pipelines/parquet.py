"""Parquet files in Hugging Face's image layout: a column of encoded images and a column of labels."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.errors import InputError, extra
from fastreg.pipelines.address import Shard
from fastreg.pipelines.shard_cache import ShardCache
from fastreg.pipelines.shard_index import PER_SHARD, ScannedShard, WrongKey, open_index
from fastreg.pipelines.source import Dataset, Source

GROUP_BYTES = 1 << 30  # of row groups that stay in memory
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")


class ParquetSource(Source):
    """One split in parquet files; samples are ordered by file name, then row.

    A sample is read with its whole row group. The most recently used row groups stay in memory, so that page order
    reads each row group about once.

    Args:
        shards: The files, sorted by name.
        root: The data directory as the user gave it, for messages.
        name, split, spec: Name, split and row of the data set.
        image_key: Column of the images: a struct with a field ``bytes``, or binary. By default the column that the
            metadata of Hugging Face call an image, else one of ``IMAGE_COLUMNS``.
        label_key: Column of the labels: whole numbers or class names. By default the column that the metadata call a
            class label, else one of ``LABEL_COLUMNS``.
        cache: Local copies of remote files.
        cache_dir: Folder of the index, if it cannot be written beside the files.

    Attributes:
        pages: int64 [N], number of the row group of each sample, counted over all files.
        window: Number of row groups that page order shuffles together.
        fits_cache: Whether all remote files fit into the cache.

    Raises:
        InputError: pyarrow is missing, a file is damaged, or a column is missing.
    """

    window = 64

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
        _pyarrow(shards[0])
        self.shards, self._cache, self._image_key = list(shards), cache, image_key
        self._groups: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._cached_bytes = 0  # bytes
        self._lock, self._busy = threading.Lock(), [threading.Lock() for _ in range(16)]

        def scan(path: Path, shard: Shard) -> ScannedShard:
            return _scan(path, shard, image_key, label_key)

        index = open_index(
            shards,
            scan,
            how=f"parquet {image_key} {label_key}",
            what=f"{name} {split}",
            spec=spec,
            cache=cache,
            cache_dir=cache_dir,
        )
        self._index = index
        groups = np.stack([index.shard.astype(np.int64), index.where[:, 0]], 1)
        self.pages = np.unique(groups, axis=0, return_inverse=True)[1].ravel()
        counts = f"{len(index.labels)} images, {len(index.classes)} classes, {len(self.shards)} parquet files"
        super().__init__(name, split, root, spec, index.labels, index.classes, counts)
        self.fits_cache = cache.fits(self.shards)

    def content(self) -> str:
        return self._index.content

    def read(self, index: int) -> bytes:
        shard, (group, row) = int(self._index.shard[index]), self._index.where[index].tolist()
        value = self._group(shard, group)[row].as_py()
        if value is None:
            raise ValueError("it has no bytes in the file")
        return value

    def describe(self, index: int) -> str:
        shard, (group, row) = self.shards[self._index.shard[index]], self._index.where[index].tolist()
        return f"{shard.path}, row {row} of row group {group}"

    def key(self, index: int) -> str:
        return self._paths[index]

    @cached_property
    def _paths(self) -> list[str]:
        """The path of every image as the file has it, else the names of file and row."""
        found: list[str] = []
        for shard in self.shards:
            with _open(self._cache.local_path(shard)) as file:
                column = _columns(file.schema_arrow, self._image_key, None)[0]
                names: list[Any] = [None] * file.metadata.num_rows
                if f"{column}.path" in (file.schema.column(k).path for k in range(len(file.schema))):
                    table = file.read(columns=[f"{column}.path"], use_threads=False)
                    names = table.column(0).combine_chunks().field("path").to_pylist()
            found += [str(name) if name else f"{shard.name} {row}" for row, name in enumerate(names)]
        return found

    def _group(self, shard: int, group: int) -> Any:
        """The images of a row group as an arrow array. One thread reads it while other threads wait."""
        key = shard, group
        with self._busy[hash(key) % len(self._busy)]:
            with self._lock:
                if key in self._groups:
                    self._groups.move_to_end(key)
                    return self._groups[key]
            try:
                with _open(self._cache.local_path(self.shards[shard])) as file:
                    images = _images(file, group, _columns(file.schema_arrow, self._image_key, None)[0])
            except ValueError:
                raise
            except Exception as error:  # arrow's own classes
                raise OSError(_reason(error)) from None
            with self._lock:
                self._groups[key] = images
                self._cached_bytes += images.nbytes
                while self._cached_bytes > GROUP_BYTES and len(self._groups) > 1:
                    self._cached_bytes -= self._groups.popitem(last=False)[1].nbytes
            return images


def _pyarrow(shard: Shard) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(f"{shard.path} needs pyarrow ({error}): {extra('parquet')}.") from None


def _open(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, memory_map=False)  # a map of a file that is cut ends the process with SIGBUS


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _scan(path: Path, shard: Shard, image_key: str | None, label_key: str | None) -> ScannedShard:
    try:
        with _open(path) as file:
            schema = file.schema_arrow
            image, label, classes = _columns(schema, image_key, label_key)
            counts = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
            if sum(counts) > path.stat().st_size:  # repeated values take no bytes, and images do
                raise ValueError(f"it claims {sum(counts):,} images in {path.stat().st_size:,} bytes")
            labels = _labels(file, label, classes, sum(counts))
            digest = hashlib.sha256()
            rows = _images(file, 0, image) if sum(counts[:1]) else []
            for k in np.unique(np.linspace(0, max(0, len(rows) - 1), PER_SHARD).astype(int))[: len(rows)].tolist():
                digest.update(rows[k].as_py() or b"")
    except (ValueError, OSError):
        raise
    except Exception as error:  # arrow's own classes
        raise ValueError(_reason(error)) from None
    where = [np.stack([np.full(count, k), np.arange(count)], 1) for k, count in enumerate(counts)]
    return ScannedShard(np.concatenate([np.empty((0, 2), np.int64), *where]), labels, digest.hexdigest(), classes)


def _features(schema: Any) -> dict[str, Any]:
    """The features in the metadata that Hugging Face's datasets write; none if there are no metadata."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return {key: value for key, value in about.items() if isinstance(value, dict)} if isinstance(about, dict) else {}


def _columns(schema: Any, image_key: str | None, label_key: str | None) -> tuple[str, str, tuple[str, ...]]:
    """(column of the images, of the labels, class names)."""
    features, names = _features(schema), list(schema.names)

    def named(key: str | None, parameter: str, kind: str, usual: Sequence[str]) -> str:
        candidates = [key] if key else [name for name in names if features.get(name, {}).get("_type") == kind]
        found = [name for name in candidates or usual if name in names]
        if not found:
            raise WrongKey(
                f"it has no column {key or ' or '.join(usual)} but {', '.join(names[:20])}; `{parameter}` names it"
            )
        return found[0]

    image = named(image_key, "image_key", "Image", IMAGE_COLUMNS)
    label = named(label_key, "label_key", "ClassLabel", LABEL_COLUMNS)
    classes = features.get(label, {}).get("names")
    return image, label, tuple(map(str, classes)) if isinstance(classes, list) else ()


def _images(file: Any, group: int, column: str) -> Any:
    """The encoded images of a row group."""
    import pyarrow as pa

    kind = file.schema_arrow.field(column).type
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise WrongKey(f"column {column!r} is {kind}, not encoded images; `image_key` names their column")
    table = file.read_row_group(group, columns=[f"{column}.bytes" if is_struct else column], use_threads=False)
    values = table.column(0).combine_chunks()
    return values.field("bytes") if is_struct else values


def _labels(file: Any, column: str, classes: Sequence[str], rows: int) -> list[Any]:
    import pyarrow as pa

    kind = file.schema_arrow.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise WrongKey(f"column {column!r} is {kind}, neither whole numbers nor names; `label_key` names the labels")
    values = file.read(columns=[column], use_threads=False).column(column).to_pylist()
    if len(values) != rows or None in values:
        missing = values.index(None) if None in values else len(values)
        raise ValueError(f"row {missing} has no label in column {column!r}")
    if classes and values and isinstance(values[0], str):
        number = {name: k for k, name in enumerate(classes)}
        values = [number.get(value, -1) for value in values]
    return values
