"""Writes a source's samples as WebDataset shards and as parquet files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np


def add_member(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(body)
    tar.addfile(entry, io.BytesIO(body))


def label_text(label: int, name: str) -> list[tuple[str, bytes]]:
    return [("cls", str(label).encode())]


def label_json(label: int, name: str) -> list[tuple[str, bytes]]:
    return [("json", json.dumps({"label": label, "file": name}).encode())]


def write_shards(
    source: Any,
    folder: Path,
    shards: int = 3,
    split: str | None = None,
    label: Callable[[int, str], Iterable[tuple[str, bytes]]] = label_text,
    format: int = tarfile.PAX_FORMAT,
) -> list[Path]:
    """Tar shards of a source's samples, in its order; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, chosen in enumerate(np.array_split(np.arange(len(source)), shards)):
        path = folder / f"{split or source.split}-{k:04d}.tar"
        with tarfile.open(path, "w", format=format) as tar:
            for index in chosen.tolist():
                name = f"sample{index:06d}"
                for key, body in label(int(source.labels[index]), name):
                    add_member(tar, f"{name}.{key}", body)
                add_member(tar, f"{name}.jpg", source.read(index))
        paths.append(path)
    return paths


def write_parquet(
    source: Any, folder: Path, files: int = 2, rows: int = 13, struct: bool = True, names: bool = True
) -> list[Path]:
    """Parquet files in Hugging Face's layout, in the source's order; returns the files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
    if names:
        features["label"] = {"names": list(source.classes), "_type": "ClassLabel"}
    paths = []
    for k, chosen in enumerate(np.array_split(np.arange(len(source)), files)):
        images = [source.read(index) for index in chosen.tolist()]
        column = (
            [{"bytes": image, "path": f"{index}.jpg"} for index, image in zip(chosen, images)] if struct else images
        )
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
        table = pa.table(
            {"image": pa.array(column, kind), "label": pa.array(source.labels[chosen].tolist(), pa.int64())}
        )
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if struct else None
        paths.append(folder / f"{source.split}-{k:05d}-of-{files:05d}.parquet")
        pq.write_table(table.replace_schema_metadata(metadata), paths[-1], row_group_size=rows)
    return paths
