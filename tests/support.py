"""Helpers of several test folders: a tiny data set on disk, and the command line as a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def write_tiny_imagenet(root: Path, classes: int = 4, train: int = 16, val: int = 4, side: int = 48) -> Path:
    """``root/{train,val}/class<i>/*.JPEG``: one hue and one stripe width per class, the rest random."""
    rng = np.random.default_rng(5)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(side, 2 * side, 2)
                stripes = 90 * np.sin(np.arange(width) / (label + 1.5) + rng.uniform(0, 6))
                pixels = 128 + stripes[None, :, None] + rng.normal(0, 20, (height, width, 3))
                pixels[..., label % 3] += 60
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / f"{split}_{label}_{i:03d}.JPEG", quality=92)
    return root


def peer(package: str) -> Any:
    """The package, or a skip with the reason if it cannot be imported (FASTREG_MUST_RUN names required packages)."""
    from fastreg.benchmarks.peers import need

    try:
        return need(package)
    except ImportError as error:
        pytest.skip(str(error))


def resident_memory() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def environment(**more: str) -> dict[str, str]:
    """This process's environment with the checkout importable and one thread per child, so that runs repeat."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "fastreg", *map(str, words)]


def fastreg(*words: str, cwd: Path | None = None, timeout: float = 240, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``fastreg WORDS`` in a child process and return it with its output as text."""
    return subprocess.run(
        command(*words), cwd=cwd or ROOT, env=environment(**env), capture_output=True, text=True, timeout=timeout
    )


def train_words(data: Path, output: Path, name: str, *more: str) -> list[str]:
    """A run small enough for a test: ResNet-18 at 32 px, batch 8."""
    words = (
        f"train imagenet --data-dir {data} --output {output} --name {name} --reg mixup --ls 0.1 --loader folder "
        "--size 32 -b 8 --epochs 2 --device cpu -j 1 --lr 0.005"
    )
    return [*words.split(), *map(str, more)]
