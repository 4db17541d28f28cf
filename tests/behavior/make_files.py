"""Makes a sample of every file format that a checkout writes: small run folders, corrupted.json, a benchmark record.

    PYTHONPATH=CHECKOUT python tests/behavior/make_files.py OUT

Checkpoints keep their keys, shapes and data types. In tensors of more than 1000 values, values below half of the
largest magnitude become zero, so that gzip makes the files small. Scorecards are measured with these weights.
"""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tiny import fastreg, write_cifar, write_folders

CIFAR = (
    "cifar100 --data-dir cifar100 --recipe fast/cifar100/cifarnet --reg mixup --ls 0.1 --model-ema-decay 0.9 "
    "--epochs 6 -b 8 -j 1 --device cpu --name cifar100"
)
FOLDERS = (
    "imagenet --data-dir imagenet --loader folder --reg cutmix+shakedrop --size 32 --epochs 1 -b 8 -j 1 --device cpu "
    "--name imagenet"
)
KEPT = ("config.json", "environment.json", "log.jsonl", "log.csv", "epochs.csv", "scorecard.json")
SUITES = "clean,fgsm,pgd,occlusion,calibration,confidence"


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_cifar(work / "cifar100")
        write_folders(work / "imagenet")
        train_and_stop(work)
        for name in ("last.pt", "best.pt"):
            make_small(work / "runs" / "cifar100" / name)
        evaluate, tiny = f"eval runs/%s --device cpu -j 1 --suite {SUITES}", "--size 32 --constants tiny64"
        for words in (
            f"{evaluate % 'cifar100'},cifar-c --corruptions fog,frost --data-dir cifar100",
            f"train {FOLDERS}",
            f"{evaluate % 'imagenet'},imagenet-c --corruptions snow,contrast --data-dir imagenet {tiny}",
            f"corrupt ./imagenet folders --corruption contrast --severity 1,4 -j 1 {tiny}",
            "corrupt ./cifar100 arrays --corruption fog,spatter -j 1",
            "bench loss --quick --device cpu --out benchmark",
        ):
            fastreg(*words.split(), cwd=work)
        keep(work, out)


def train_and_stop(work: Path) -> None:
    """A run that is interrupted after its first epoch."""
    epochs = work / "runs" / "cifar100" / "epochs.csv"
    process = subprocess.Popen([sys.executable, "-m", "fastreg", "train", *CIFAR.split()], cwd=work, env=os.environ)
    while process.poll() is None and not (epochs.is_file() and len(epochs.read_text().splitlines()) > 1):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    process.wait()


def make_small(path: Path) -> None:
    """Writes a checkpoint again, its large tensors sparse."""
    torch.save(sparse(torch.load(path, map_location="cpu", weights_only=True)), path)


def sparse(value: Any) -> Any:
    if isinstance(value, dict):
        kept = type(value)((key, sparse(inner)) for key, inner in value.items())
        if hasattr(value, "_metadata"):
            kept._metadata = value._metadata  # type: ignore[attr-defined]
        return kept
    if isinstance(value, list):
        return [sparse(inner) for inner in value]
    if not isinstance(value, torch.Tensor) or value.numel() <= 1000:
        return value
    return torch.where(value.abs() >= value.abs().max() / 2, value, 0)


def keep(work: Path, out: Path) -> None:
    for name in ("cifar100", "imagenet"):
        (out / name).mkdir(parents=True)
        for file in KEPT:
            shutil.copy(work / "runs" / name / file, out / name / file)
    for file in ("last.pt", "best.pt"):
        content = (work / "runs" / "cifar100" / file).read_bytes()
        (out / "cifar100" / f"{file}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
    shutil.copytree(work / "folders", out / "corrupted-folders", ignore=shutil.ignore_patterns(".*"))
    (out / "corrupted-arrays").mkdir()
    shutil.copy(work / "arrays" / "corrupted.json", out / "corrupted-arrays")
    shutil.copy(next((work / "benchmark").glob("*.json")), out / "benchmark.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
