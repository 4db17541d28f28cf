"""Images per second of each loader alone, files to uint8 training crops, beside other people's on the same files.

What is compared delivers random-resized crops of the same size, shuffled, with as many threads or processes as this
process may use cores.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fastreg.benchmarks.job import Job
from fastreg.benchmarks.loader_peers import PEERS, bare_ffcv
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.timing import Timing, summary
from fastreg.errors import InputError
from fastreg.pipelines import make_loader, open_dataset

IMAGES, IMAGES_QUICK = 512, 128  # in one sample; a loader's first batches come from its queue, so many batches
CANVAS = 256  # pixels; they leave the loader untouched, `augment` crops them
BETON_AT_MOST = 20_000  # images that a benchmark converts by itself


def rows(job: Job, settings: dict[str, Any]) -> Iterator[Row | Absent]:
    try:
        source = open_dataset("imagenet", "train", job.data_dir)
    except InputError as error:
        if job.data_dir is not None:
            raise
        yield Absent("load", OURS, str(error))
        return
    size, batch = job.size or 224, job.batch_size or (256 if job.gpu else 32)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings |= {"data": f"{source.name}{' sample' if source.is_sample else ''}, {len(source)} images", "size": size}
    settings |= {"batch_size": batch, "workers": workers}
    with tempfile.TemporaryDirectory() as folder:
        beton, why = beton_of(source, Path(folder))
        jobs: list[tuple[str, str, Callable[[], Iterator[Any]]]] = [
            ("load folder", OURS, lambda: ours(source, "folder", job, batch, size)),
            ("load dali", OURS, lambda: ours(source, "dali", job, batch, size)),
        ]
        canvases, why_not = write_canvases(source, Path(folder))
        for case, file, lacks in (("load ffcv", beton, why), (f"load canvases of {CANVAS}", canvases, why_not)):
            if file is None:
                yield Absent(case, OURS, lacks)
                continue
            stored = open_dataset("imagenet", "train", file)
            jobs.append((case, OURS, partial(ours, stored, "ffcv", job, batch, size)))
        for case, peer, build in PEERS:
            jobs.append((case, peer, partial(build, source, beton, batch, size, workers, job)))
        if canvases is not None:
            case, peer = f"load canvases of {CANVAS}", "bare FFCV, which crops on the CPU"
            jobs.append((case, peer, partial(bare_ffcv, source, canvases, batch, size, workers, job)))
        for case, variant, batches in sorted(jobs, key=lambda one: one[0]):
            try:
                timing = drain(batches, batch, IMAGES_QUICK if job.quick else IMAGES, job.seconds(12))
            except (InputError, ImportError) as error:
                yield Absent(case, variant, str(error).replace(folder, "a temporary folder"))
                continue
            yield Row.of(case, variant, timing, images=batch)


def ours(source: Any, name: str, job: Job, batch: int, size: int) -> Iterator[Any]:
    """Batches of fastreg's loader without end; its threads end with the iterator."""
    with make_loader(source, loader=name, train=True, batch_size=batch, size=size, device=job.device) as loader:
        position = 0
        while True:
            for found in loader.batches(position):
                yield found
                position += loader.global_batch


def drain(batches: Callable[[], Iterator[Any]], batch: int, images: int, seconds: float) -> Timing:
    """Microseconds per batch over samples of ``images`` images, after one sample that is not counted."""
    per_sample = max(1, images // batch)
    taken: list[float] = []
    with contextlib.closing(batches()) as feed:  # type: ignore[type-var]
        end = None
        while len(taken) < 6 or (end is not None and time.perf_counter() < end and len(taken) < 40):
            start = time.perf_counter()
            for _ in range(per_sample):
                next(feed)
            taken.append(1e6 * (time.perf_counter() - start) / per_sample)
            end = end or time.perf_counter() + seconds
    return summary(taken[1:])


def beton_of(source: Any, folder: Path) -> tuple[Path | None, str]:
    """The data set as a .beton file: its own, or one written into ``folder``; or None and the reason."""
    root = source.root
    for path in (root, root / "train.beton"):
        if path.suffix == ".beton" and path.is_file():
            return path, ""
    if len(source) > BETON_AT_MOST:
        return None, "no train.beton there: write one with fastreg data prepare"
    from fastreg.pipelines.prepare import write_beton

    path = folder / "train.beton"
    write_beton("imagenet", root, path, jpeg_prob=1.0)
    return path, ""


def write_canvases(source: Any, folder: Path) -> tuple[Path | None, str]:
    """A .beton file of raw canvases of the data set, written into ``folder``; or None and the reason."""
    from fastreg.pipelines.prepare import write_beton

    if not source.root.is_dir() or (source.root / "train.beton").is_file() or len(source) > BETON_AT_MOST:
        return None, f"canvases are written from folders of at most {BETON_AT_MOST:,} images"
    write_beton("imagenet", source.root, folder / "canvases.train.beton", raw=CANVAS)
    return folder / "canvases.train.beton", ""
