"""Images per second of each loader alone, files to uint8 training crops, beside other people's on the same files.

What is compared delivers random-resized crops of the same size, shuffled, with as many threads or processes as this
process may use cores. Without a real ImageNet, the files are photographs of its most frequent size.
"""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.benchmarks.images import write_files
from fastreg.benchmarks.options import Job
from fastreg.benchmarks.peers.loaders import PEERS
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.suites.loader_stages import bottleneck
from fastreg.benchmarks.timing import Timing, summary
from fastreg.errors import InputError
from fastreg.pipelines import make_loader, open_dataset
from fastreg.pipelines.prepare import write_beton

FILES, FILES_QUICK = 512, 128
IMAGES, IMAGES_QUICK = 512, 128  # in one sample
TIMES = 16  # how often an epoch has every image: the end of an epoch is as rare as in a large set
CONVERTED_AT_MOST = 20_000  # images that a benchmark converts by itself
FORMS: dict[str, dict[str, Any]] = {
    "JPEG": {"jpeg_prob": 1.0, "quality": None},
    "raw images": {"jpeg_prob": 0.0},
    "canvases of 256": {"raw": 256},  # which leave the loader untouched: `augment` crops them
}

Batches = Callable[[], Iterator[Any]]


def rows(job: Job, settings: dict[str, Any]) -> Iterator[Row | Absent]:
    size, batch = (160, 256) if job.gpu else (224, 32)
    size, batch = job.size or size, job.batch_size or batch
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files, what = image_files(job, folder)
        settings |= {"data": what, "size": size, "batch_size": batch, "workers": workers, "notes": []}
        for case, name in (("folder", "folder"), ("dali", "dali"), *((form, "ffcv") for form in FORMS)):
            source, lacks = (files, "") if name != "ffcv" else as_beton(files, folder, case)
            case = f"load {case}" if name != "ffcv" else f"load ffcv {case}"
            if source is None:
                yield Absent(case, OURS, lacks)
                continue
            source = lengthened(source, max(1, TIMES * FILES // len(source)))
            variants = {OURS: partial(ours, source, name, job, batch, size)}
            variants |= {peer: partial(build, source, batch, size, workers, job) for peer, build in PEERS[name].items()}
            images = IMAGES_QUICK if job.quick else IMAGES
            found = race(variants, max(1, images // batch), job.seconds(6 if job.gpu else 20), ahead=2 * workers + 4)
            for variant, timing in found.items():
                if isinstance(timing, str):
                    yield Absent(case, variant, timing.replace(temporary, "a temporary folder"))
                else:
                    yield Row.of(case, variant, timing, images=batch)
            mine = found[OURS]
            if isinstance(mine, Timing):
                said = bottleneck(name, source, size, workers, mine.us / batch)
                settings["notes"].append(f"bottleneck of {case.removeprefix('load ')}: {said}")


def ours(source: Any, name: str, job: Job, batch: int, size: int) -> Iterator[Any]:
    """Batches of fastreg's loader without end; its threads end with the iterator."""
    with make_loader(source, loader=name, train=True, batch_size=batch, size=size, device=job.device) as loader:
        position = 0
        while True:
            for found in loader.batches(position):
                yield found
                position += loader.global_batch


def race(variants: dict[str, Batches], sample: int, seconds: float, ahead: int) -> dict[str, Timing | str]:
    """Microseconds per batch of each variant over samples of ``sample`` batches, or why it does not run.

    They take turns, each for a third of its ``seconds`` at a time; what lies in its queue by then is not counted:
    ``ahead`` batches.
    """
    with contextlib.ExitStack() as open_feeds:
        feeds: dict[str, Iterator[Any]] = {}
        found: dict[str, Timing | str] = {}
        for variant, start in variants.items():
            feed = open_feeds.enter_context(contextlib.closing(start()))  # type: ignore[type-var]
            try:
                next(feed)
                feeds[variant] = feed
            except (InputError, ImportError) as error:
                found[variant] = str(error)
        taken: dict[str, list[float]] = {variant: [] for variant in feeds}
        for _ in range(3):
            for variant, feed in feeds.items():
                for _ in range(ahead):
                    next(feed)
                end, samples = time.perf_counter() + seconds / 3, 0
                while samples < 2 or time.perf_counter() < end:
                    start_ = time.perf_counter()
                    for _ in range(sample):
                        next(feed)
                    taken[variant].append(1e6 * (time.perf_counter() - start_) / sample)
                    samples += 1
    return found | {variant: summary(values) for variant, values in taken.items()}


def image_files(job: Job, folder: Path) -> tuple[Any, str]:
    """The training files, and what they are: ImageNet's where it is, else photographs written into ``folder``."""
    try:
        source = open_dataset("imagenet", "train", job.data_dir)
        if not source.is_sample:
            return source, f"{source.name}, {len(source)} images"
    except InputError:
        if job.data_dir is not None:
            raise
    what = write_files(folder / "files", FILES_QUICK if job.quick else FILES)
    return open_dataset("imagenet", "train", folder / "files"), what


def as_beton(files: Any, folder: Path, form: str) -> tuple[Any, str]:
    """The data set in a ``.beton`` file in one of ``FORMS``, written into ``folder``; or None and the reason."""
    if files.root.suffix == ".beton":
        return (files, "") if form == "JPEG" else (None, "other forms are made from folders of images")
    if len(files) > CONVERTED_AT_MOST:
        return None, f"a benchmark converts at most {CONVERTED_AT_MOST:,} images: give it a .beton file"
    path = folder / f"{form.replace(' ', '-')}.beton"
    write_beton("imagenet", files.root, path, split="train", **FORMS[form])
    return open_dataset("imagenet", "train", path), ""


def lengthened(source: Any, times: int) -> Any:
    """A source that has every sample ``times`` over."""
    longer = copy.copy(source)
    for name, value in vars(source).items():
        if isinstance(value, np.ndarray) and value.shape == (len(source),):
            setattr(longer, name, np.tile(value, times))
        elif isinstance(value, list) and len(value) == len(source):
            setattr(longer, name, value * times)
    return longer
