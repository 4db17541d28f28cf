"""Images per second of each loader alone, from files to uint8 training crops, beside other loaders on the same files.

All of them deliver shuffled random-resized crops of the same size, with one thread or process per core of this process.
Without ImageNet on disk, the files are real images of its most frequent size.
"""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.benchmarks import timing
from fastreg.benchmarks.cases import Case, failed
from fastreg.benchmarks.images import write_files
from fastreg.benchmarks.loader_stages import bottleneck
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers.loaders import PEERS
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.suites import Benchmark
from fastreg.benchmarks.timing import Timing, summary
from fastreg.errors import InputError
from fastreg.pipelines import make_loader, open_dataset
from fastreg.pipelines.prepare import write_beton

BENCHMARK = Benchmark(help="files to training crops, without a training step", order=5, seconds=20, setup=1.0)

FILES, FILES_QUICK = 512, 128
IMAGES, IMAGES_QUICK = 512, 128  # in one sample
REPEATS = 16  # uses of each image in one epoch, so the end of an epoch is as rare as in a large data set
CONVERTED_AT_MOST = 20_000  # images that a benchmark converts to .beton
FORMS: dict[str, dict[str, Any]] = {
    "JPEG": {"jpeg_prob": 1.0, "quality": None},
    "raw images": {"jpeg_prob": 0.0},
    "canvases of 256": {"raw": 256},  # the loader delivers them whole; `augment` crops them
}

# Class folders of other files, and other sizes of the crops; on a CPU at full scope, without ImageNet only
OTHER_FILES: dict[str, dict[str, Any]] = {
    "load folder, 2000 x 1500": {"sides": (1500, 2000), "n": 96},
    "load folder, PNG": {"extension": "PNG", "n": 256},
}
OTHER_SIZES = {"load folder at 64 px": 64, "load folder at 384 px": 384}
CASES = {"load folder": "folder", "load dali": "dali"} | {f"load ffcv {form}": "ffcv" for form in FORMS}
Batches = Callable[[], Iterator[Any]]


def cases(options: BenchmarkOptions, settings: dict[str, Any]) -> Iterator[Case]:
    size, batch = (160, 256) if options.gpu else (224, 32)
    size, batch = options.size or size, options.batch_size or batch
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files, what = image_files(options, folder)
        settings |= {"data": what, "size": size, "batch_size": batch, "workers": cores(), "notes": []}
        for case, name in CASES.items():
            yield Case(case, partial(_rows, options, case, name, files, folder, batch, size, settings["notes"]))
        if options.quick or options.gpu:
            return
        for case, other in OTHER_SIZES.items():
            yield Case(case, partial(_rows, options, case, "folder", files, folder, batch, other, settings["notes"], 8))
        if folder not in Path(files.root).parents:
            return
        for case, form in OTHER_FILES.items():
            write_files(folder / case, **form)
            source = open_dataset("imagenet", "train", folder / case)
            yield Case(case, partial(_rows, options, case, "folder", source, folder, batch, size, settings["notes"], 8))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rows(
    options: BenchmarkOptions,
    case: str,
    name: str,
    files: Any,
    folder: Path,
    batch: int,
    size: int,
    notes: list[str],
    seconds: float = 20,
) -> Iterator[Row | Absent]:
    source, reason = (files, "") if name != "ffcv" else as_beton(files, folder, case.removeprefix("load ffcv "))
    if source is None:
        yield Absent(case, OURS, reason)
        return
    workers = cores()
    source = lengthened(source, max(1, REPEATS * FILES // len(source)))
    variants = {OURS: partial(ours, source, name, options, batch, size)}
    peers = {} if options.scope == "main" else PEERS[name]
    variants |= {peer: partial(build, source, batch, size, workers, options) for peer, build in peers.items()}
    sample = max(1, (IMAGES_QUICK if options.quick else IMAGES) // batch)
    ahead = 8 if options.scope == "main" else 2 * workers + 4
    found = alternate(variants, sample, options.seconds(6 if options.gpu else seconds), ahead)
    for variant, outcome in found.items():
        if isinstance(outcome, str):
            yield Absent(case, variant, outcome.replace(str(folder), "a temporary folder"))
        else:
            yield Row.of(case, variant, outcome, images=batch)
    mine = found[OURS]
    if isinstance(mine, Timing):
        stages = bottleneck(name, source, size, workers, mine.us / batch)
        notes.append(f"bottleneck of {case.removeprefix('load ')}: {stages}")


def ours(source: Any, name: str, options: BenchmarkOptions, batch: int, size: int) -> Iterator[Any]:
    """Batches of fastreg's loader, without end; its threads end with the iterator."""
    with make_loader(source, loader=name, train=True, batch_size=batch, size=size, device=options.device) as loader:
        position = 0
        while True:
            for found in loader.batches(position):
                yield found
                position += loader.global_batch


def alternate(variants: Mapping[str, Batches], sample: int, seconds: float, ahead: int) -> dict[str, Timing | str]:
    """Time loaders in turn, each for a third of its time.

    Args:
        variants: by name, a function that starts a loader and returns its batches.
        sample: batches in one sample.
        seconds: time budget of each loader.
        ahead: batches that a loader may have queued before its turn; that many are not counted.

    Returns:
        Microseconds per batch of each variant, or the reason why it does not run.
    """
    if timing.stub is not None:
        return {**timing.stub.measure(variants, seconds * len(variants))}
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
            except Exception as error:  # a peer that does not fit the machine
                found[variant] = failed("", variant, error).reason
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


def image_files(options: BenchmarkOptions, folder: Path) -> tuple[Any, str]:
    """``(training files, description)``: ImageNet's if it is found, else real images written into ``folder``."""
    try:
        source = open_dataset("imagenet", "train", options.data_dir)
        if not source.is_sample:
            return source, f"{source.name}, {len(source)} images"
    except InputError:
        if options.data_dir is not None:
            raise
    what = write_files(folder / "files", FILES_QUICK if options.quick else FILES)
    return open_dataset("imagenet", "train", folder / "files"), what


def as_beton(files: Any, folder: Path, form: str) -> tuple[Any, str]:
    """``(data set, "")``, written into ``folder`` as a ``.beton`` file in one of ``FORMS``; or ``(None, reason)``."""
    if files.root.suffix == ".beton":
        return (files, "") if form == "JPEG" else (None, "other forms are made from folders of images")
    if len(files) > CONVERTED_AT_MOST:
        return None, f"a benchmark converts at most {CONVERTED_AT_MOST:,} images: give it a .beton file"
    path = folder / f"{form.replace(' ', '-')}.beton"
    write_beton("imagenet", files.root, path, split="train", **FORMS[form])
    return open_dataset("imagenet", "train", path), ""


def lengthened(source: Any, times: int) -> Any:
    """A source with every sample ``times`` times."""
    longer = copy.copy(source)
    for name, value in vars(source).items():
        if isinstance(value, np.ndarray) and value.shape == (len(source),):
            setattr(longer, name, np.tile(value, times))
        elif isinstance(value, list) and len(value) == len(source):
            setattr(longer, name, value * times)
    for name in ("read", "describe"):  # a FileList is as long as before
        method = getattr(source, name)
        setattr(longer, name, lambda index, method=method: method(int(index) % len(source)))
    return longer
