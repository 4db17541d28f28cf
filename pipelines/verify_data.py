"""``fastreg data verify`` and ``fastreg data info``: read every sample, or describe the data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.address import is_address, is_pattern
from fastreg.pipelines.datasets import DATASETS, SPLITS, find, open_dataset, split_named, stored_splits
from fastreg.pipelines.decoder import BatchRequest, DecodePool, cancel_all, look_ahead, worker_count
from fastreg.pipelines.image import ERRORS, header, open_image, pixels, reason, scaling
from fastreg.pipelines.natural_sets import NATURAL_SETS, require_set
from fastreg.pipelines.source import FolderSource, Source
from fastreg.progress import progress

INFO_SAMPLES = 256  # headers that ``info`` reads per split


def _named(name: str, data_dir: str | Path | None) -> tuple[str, str | Path | None]:
    """(name, root) of a data set. A path instead of a name is a data set of class folders."""
    is_path = data_dir is None and name not in DATASETS
    is_path = is_path and (is_address(name) or is_pattern(name) or Path(name).exists())
    return ("folder", name) if is_path else (name, data_dir)


def _splits(name: str, data_dir: str | Path | None, **keys: Any) -> list[Source]:
    """Every split that is stored. Raises InputError if none is, or one is damaged."""
    if name in NATURAL_SETS:
        path = require_set(name, data_dir)
        return [FolderSource(path.parent, name, path.name, DATASETS["imagenet"], folder=path)]
    root = find(name, data_dir)
    if str(root).endswith(".beton"):
        first = split_named(PurePosixPath(str(root)).stem) or "train"
        try:
            return [open_dataset(name, first, root, **keys)]
        except InputError:  # the data may have only the other split
            return [open_dataset(name, "train" if first != "train" else "val", root, **keys)]
    there = stored_splits(root)
    if len(there) == 2 and there["train"].files and there["train"].files == there["val"].files:
        del there["val"]  # shards whose names contain no split
    return [open_dataset(name, split, root, **keys) for split in there or SPLITS]


def verify(
    name: str,
    data_dir: str | Path | None = None,
    workers: int | None = None,
    *,
    image_key: str | None = None,
    label_key: str | None = None,
) -> dict[str, Any]:
    """Decode every sample of every split of a data set.

    Args:
        name: A key of ``DATASETS`` or ``NATURAL_SETS``, or a path or address.
        data_dir: Its root; by default where ``find`` looks.
        workers: Threads; None: this process's share of the cores.
        image_key, label_key: As for ``open_dataset``.

    Returns:
        {"checked": number of samples, "broken": [(where, why), ...]}; and, if there are images of more than 8 bits,
        "scaled": {how their pixels are scaled: number of images}.

    Raises:
        InputError: There is no usable data set. A broken image raises nothing.
    """
    name, data_dir = _named(name, data_dir)
    pool, broken, checked = DecodePool(worker_count(workers)), [], 0
    scales: list[str] = []

    try:
        for source in _splits(name, data_dir, image_key=image_key, label_key=label_key):

            def check(request: BatchRequest, first: int, stop: int, source: Source = source) -> list[tuple[str, str]]:
                found = []
                for index in request.indices[first:stop].tolist():
                    try:
                        data = source.read(index)
                        source.check(index)
                        plain = header(data).plain
                        pixels(data, plain)
                        if not plain and (scale := scaling(open_image(data))):
                            scales.append(scale)
                    except ERRORS as error:
                        found.append((source.describe(index), reason(error)))
                return found

            def start(request: BatchRequest, check: Any = check) -> Any:
                return request, pool.map_chunks(request, check)

            n = len(source)
            requests = (BatchRequest(0, np.arange(a, min(a + 256, n))) for a in range(0, n, 256))
            with progress(f"verify {name} {source.split}", n) as bar:
                for request, futures in look_ahead(requests, start, 2, lambda started: cancel_all(started[1])):
                    broken += [row for future in futures for row in future.result()]
                    bar.advance(len(request.indices), note=f"{len(broken)} broken" if broken else "")
            checked += n
    finally:
        pool.close()
    found: dict[str, Any] = {"checked": checked, "broken": broken}
    return {**found, "scaled": dict(Counter(scales))} if scales else found


def info(
    name: str, data_dir: str | Path | None = None, *, image_key: str | None = None, label_key: str | None = None
) -> dict[str, Any]:
    """Describe a data set; reads the headers of at most ``INFO_SAMPLES`` samples per split.

    Args:
        name: A key of ``DATASETS`` or ``NATURAL_SETS``, or a path or address.
        data_dir: Its root; by default where ``find`` looks.
        image_key, label_key: As for ``open_dataset``.

    Returns:
        {"name", "path", "sample", "splits"}; a split has "images", "classes", "fingerprint", "formats" (counts), and
        least, median and most as triples: "width" and "height" in pixels, "sides" of both, and "per_class" (images).

    Raises:
        InputError: There is no usable data set.
    """
    name, data_dir = _named(name, data_dir)
    sources = _splits(name, data_dir, image_key=image_key, label_key=label_key)
    splits = {}
    for source in sources:
        formats: Counter[str] = Counter()
        widths, heights = [], []
        for index in np.unique(np.linspace(0, len(source) - 1, INFO_SAMPLES).astype(int)).tolist():
            try:
                data = source.read(index)
                image = open_image(data)
            except ERRORS:
                formats["broken"] += 1
                continue
            formats[image.format if isinstance(data, bytes) else "raw"] += 1
            widths.append(image.size[0])
            heights.append(image.size[1])
        counts = np.bincount(source.labels, minlength=len(source.classes))
        splits[source.split] = {
            "images": len(source),
            "classes": len(source.classes),
            "fingerprint": source.fingerprint,
            "formats": dict(formats),
            "sides": _spread([*widths, *heights]),
            "width": _spread(widths),
            "height": _spread(heights),
            "per_class": (int(counts.min()), float(np.median(counts)), int(counts.max())),
        }
    return {"name": name, "path": str(sources[0].root), "sample": sources[0].is_sample, "splits": splits}


def _spread(values: list[int]) -> tuple[int, ...]:
    """Least, median and most; nothing of nothing."""
    return (min(values), int(np.median(values)), max(values)) if values else ()
