"""`fastreg data verify` and `fastreg data info`: read every sample, or say what is there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.datasets import DATASETS, SPLITS, find, open_dataset, split_named, stored
from fastreg.pipelines.decoder import Job, Pool, ahead, cancel_all, default_workers
from fastreg.pipelines.image import ERRORS, header, open_image, pixels, reason
from fastreg.pipelines.source import Source
from fastreg.progress import progress

_LOOK = 256  # headers that `info` reads per split


def _named(name: str, data_dir: str | Path | None) -> tuple[str, str | Path | None]:
    """A data set's name and where it lies; a path in the name's place is a set of one's own."""
    is_path = data_dir is None and name not in DATASETS and Path(name).exists()
    return ("folder", name) if is_path else (name, data_dir)


def _splits(name: str, data_dir: str | Path | None) -> list[Source]:
    """Every split that is there. Raises InputError when none is, or one is damaged."""
    root = find(name, data_dir)
    if root.suffix == ".beton":
        first = split_named(root.stem) or "train"
        try:
            return [open_dataset(name, first, root)]
        except InputError:  # it may hold the other one
            return [open_dataset(name, "train" if first != "train" else "val", root)]
    there = [split for split in SPLITS if stored(root, split)[0]]
    return [open_dataset(name, split, root) for split in there or SPLITS]


def verify(name: str, data_dir: str | Path | None = None, workers: int | None = None) -> dict[str, Any]:
    """Decode every sample of every split of data set ``name``, which may be a path. Returns {"checked": n, "broken":
    [(where, why), ...]}; raises nothing for a broken image, InputError when there is no usable data set."""
    name, data_dir = _named(name, data_dir)
    pool, broken, checked = Pool(default_workers(workers)), [], 0

    try:
        for source in _splits(name, data_dir):

            def look(job: Job, first: int, stop: int, source: Source = source) -> list[tuple[str, str]]:
                found = []
                for index in job.indices[first:stop].tolist():
                    try:
                        data = source.read(index)
                        source.check(index)
                        pixels(data, header(data).plain)
                    except ERRORS as error:
                        found.append((source.describe(index), reason(error)))
                return found

            def start(job: Job, look=look):
                return job, pool.map_chunks(job, look)

            n = len(source)
            jobs = (Job(0, np.arange(a, min(a + 256, n))) for a in range(0, n, 256))
            with progress(f"verify {name} {source.split}", n) as bar:
                for job, futures in ahead(jobs, start, 2, lambda started: cancel_all(started[1])):
                    broken += [row for future in futures for row in future.result()]
                    bar.advance(len(job.indices), note=f"{len(broken)} broken" if broken else "")
            checked += n
    finally:
        pool.close()
    return {"checked": checked, "broken": broken}


def info(name: str, data_dir: str | Path | None = None) -> dict[str, Any]:
    """What lies at data set ``name``, which may be a path: {"name", "path", "sample", "splits": {split: {"images",
    "classes", "fingerprint", "formats", "sides" (smallest, median, largest of the sides seen), "per_class" (fewest,
    most)}}}. Headers of at most 256 samples of a split are read."""
    name, data_dir = _named(name, data_dir)
    sources = _splits(name, data_dir)
    splits = {}
    for source in sources:
        formats: Counter[str] = Counter()
        sides = []
        for index in np.unique(np.linspace(0, len(source) - 1, _LOOK).astype(int)).tolist():
            try:
                data = source.read(index)
                image = open_image(data)
            except ERRORS:
                formats["broken"] += 1
                continue
            formats[image.format if isinstance(data, bytes) else "raw"] += 1
            sides += image.size
        counts = np.bincount(source.labels, minlength=len(source.classes))
        splits[source.split] = {
            "images": len(source),
            "classes": len(source.classes),
            "fingerprint": source.fingerprint,
            "formats": dict(formats),
            "sides": (min(sides), int(np.median(sides)), max(sides)) if sides else (),
            "per_class": (int(counts.min()), int(counts.max())),
        }
    return {"name": name, "path": str(sources[0].root), "sample": sources[0].is_sample, "splits": splits}
