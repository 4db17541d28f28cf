"""Growth with the size of the data set: listing, index, memory, the epoch's order and the log of a run.

    python -m fastreg.benchmarks.growth FOLDER [--images 1000,10000,100000,1281167] [--synthetic 14000000]

FOLDER needs an inode for every 30,000 images: classes are folders of hard links to 64 files. Every time is a multiple
of a bare ``os.scandir`` over the same tree, measured in turns with it; the table has the median of the turns. Memory is
what tracemalloc counts at its peak.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.log_files import EPOCH_COLUMNS, Log, read_epochs
from fastreg.pipelines import make_loader, open_dataset
from fastreg.pipelines.file_list import SMALL, FileList, packed, read_index
from fastreg.pipelines.order import Order
from fastreg.training.loss_curve import LossCurve
from fastreg.training.plot_curves import draw_curves

CLASSES, FILES, TURNS = 1000, 64, 7
HEADINGS = (
    "images",
    "bare scandir, CPU s",
    "list, no index",
    "list, index",
    "first batch, no index",
    "first batch, index",
    "bytes per image",
    "order, bytes per image",
)


def write_tree(root: Path, images: int) -> None:
    """``root/train/<class>/<name>.JPEG``: hard links to FILES images, in folders of another age than the listing."""
    from PIL import Image

    rng = np.random.default_rng(0)
    stock = [root / "stock" / f"{k}.JPEG" for k in range(max(FILES, -(-images // 30_000)))]
    stock[0].parent.mkdir(parents=True)
    for path in stock:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    classes = min(CLASSES, max(1, images // 10))
    for label in range(classes):
        folder = root / "train" / f"n{label:08d}"
        folder.mkdir(parents=True)
        for k in range(label, images, classes):
            os.link(stock[k % len(stock)], folder / f"n{label:08d}_{k}.JPEG")
        os.utime(folder, (1e9, 1e9))


def scan(root: Path) -> int:
    """A bare listing."""
    count = 0
    for folder in os.scandir(root / "train"):
        if folder.is_dir():
            with os.scandir(folder) as entries:
                count += sum(1 for _ in entries)
    return count


def first_batch(root: Path) -> None:
    """Open the set as a run does, with its fingerprint, and read one batch."""
    source = open_dataset("folder", "train", root)
    source.fingerprint  # noqa: B018  what a run compares
    with make_loader(source, train=True, batch_size=32, size=32, workers=1) as loader:
        next(iter(loader.batches()))


def cpu(work: Callable[[], Any]) -> float:
    """CPU seconds of a call, all threads."""
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def peak(work: Callable[[], Any]) -> int:
    """Bytes at the peak of a call."""
    gc.collect()
    tracemalloc.start()
    kept = work()
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return highest


def grown(root: Path, images: int) -> list[str]:
    """One row of the table."""
    write_tree(root, images)
    index = root / "train" / ".fastreg-files"
    variants: dict[str, tuple[bool, Callable[[], Any]]] = {
        "scan": (False, lambda: scan(root)),
        "list": (False, lambda: open_dataset("folder", "train", root)),
        "list, index": (True, lambda: open_dataset("folder", "train", root)),
        "batch": (False, lambda: first_batch(root)),
        "batch, index": (True, lambda: first_batch(root)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(TURNS + 1):
        for name, (with_index, work) in variants.items():
            if not with_index:
                index.unlink(missing_ok=True)
            elif not index.exists():
                open_dataset("folder", "train", root)
            taken = cpu(work)
            if turn:  # the first fills the caches
                seconds[name].append(taken)
    ratios = [
        "–"  # small sets have no index
        if with_index and images <= SMALL
        else f"{statistics.median(a / b for a, b in zip(seconds[name], seconds['scan'])):.2f}"
        for name, (with_index, _) in list(variants.items())[1:]
    ]
    order = peak(lambda: Order(images, 64 if images > 64 else 1, True).epoch(1))
    memory = peak(lambda: open_dataset("folder", "train", root))
    bare = f"{statistics.median(seconds['scan']):.3f}"
    return [f"{images:,}", bare, *ratios, f"{memory / images:.0f}", f"{order / images:.0f}"]


def synthetic(root: Path, images: int) -> list[str]:
    """The row of an index alone, without files: bytes per image, and CPU seconds to read it."""
    names = np.frombuffer(b"".join(b"n01440764_%010d.JPEG" % k for k in range(images)), np.uint8)
    length = len(names) // images
    starts = np.linspace(0, images, CLASSES + 1).astype(np.int64)
    folders = tuple(f"n{label:08d}" for label in range(CLASSES))
    kind = np.uint32 if len(names) < 1 << 32 else np.uint64
    ends = (np.arange(1, images + 1) * length).astype(kind)
    files = FileList(folders, folders, np.arange(CLASSES, dtype=np.int32), starts, ends, names, "0" * 64, {"x": 1})
    path = root / "synthetic-index"
    with open(path, "wb") as file:
        file.writelines(packed(files))
    del files, names, ends

    def opened() -> Any:
        kept = read_index(path)
        assert kept is not None
        return kept, kept.image_labels()

    seconds = cpu(opened)
    memory = peak(opened)
    order = peak(lambda: Order(images, 64, True).epoch(1))
    kept, order_s = f"{memory / images:.0f}", cpu(lambda: Order(images, 64, True).epoch(1))
    print(f"{images:,} by index: {seconds:.1f} CPU s to read, {order_s:.1f} CPU s for an order", file=sys.stderr)
    return [f"{images:,} (index only)", "–", "–", "–", "–", "–", kept, f"{order / images:.0f}"]


def log_rows(root: Path, steps: int, lengths: tuple[int, ...] = (10, 300)) -> list[str]:
    """Runs of some epochs of ``steps`` steps: CPU time of what the end of an epoch and a report do with the log."""
    works: dict[int, Callable[[], Any]] = {}
    for epochs in lengths:
        folder = root / f"run-{epochs}"
        folder.mkdir()
        log, curve = Log(folder), LossCurve()
        log.truncate(0, 0)
        with open(log.jsonl, "a") as file:
            for step in range(1, epochs * steps + 1):
                row = {"kind": "step", "step": step, "epoch": (step - 1) // steps, "position": step * 256}
                row |= {"lr": 0.1, "loss": 2.3 + 1e-7 * step, "images_per_second": 1234.5, "data_wait": 0.01}
                file.write(json.dumps(row) + "\n")
                curve.add(row)
        for epoch in range(epochs):
            log.add("epoch", [dict.fromkeys(EPOCH_COLUMNS, 1.5) | {"epoch": epoch, "step": (epoch + 1) * steps}])

        def end(folder: Path = folder, curve: LossCurve = curve) -> None:
            curve.save(folder)
            draw_curves(folder)
            read_epochs(folder)

        works[epochs] = end
    seconds: dict[int, list[float]] = {epochs: [] for epochs in lengths}
    for _ in range(9):
        for epochs, work in works.items():
            seconds[epochs].append(cpu(work))
    return [
        f"{epochs} epochs of {steps:,} steps: {1000 * statistics.median(seconds[epochs]):.0f} ms" for epochs in lengths
    ]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", default="1000,10000,100000,1281167")
    parser.add_argument("--synthetic", type=int, default=14_000_000)
    parser.add_argument("--steps", type=int, default=5000)
    given = parser.parse_args()
    root = given.folder / "fastreg-growth"
    root.mkdir(parents=True)
    try:
        rows = []
        for images in map(int, given.images.split(",")):
            print(f"{images:,} images ...", file=sys.stderr)
            rows.append(grown(root / str(images), images))
            shutil.rmtree(root / str(images))
        rows.append(synthetic(root, given.synthetic))
        print(
            f"{platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f}\n"
        )
        for row in (HEADINGS, ("---:",) * len(HEADINGS), *rows):
            print(f"| {' | '.join(row)} |")
        print("\nEnd of an epoch and report: " + "; ".join(log_rows(root, given.steps)))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
