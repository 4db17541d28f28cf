"""Small data sets in the official layouts, their pixels from SHAKE-256; the command line as a child process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

from digests import random_bytes, synthetic_images
from PIL import Image

CLASSES, TRAIN, VAL = 3, 8, 4  # classes, images of each class


def write_folders(root: Path) -> Path:
    """``root/{train,val}/class<i>/*.JPEG`` of 40 to 71 px."""
    for split, count in (("train", TRAIN), ("val", VAL)):
        for label in range(CLASSES):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                name = f"{split}_{label}_{i:03d}"
                height, width = (40 + value % 32 for value in random_bytes(f"sides {name}", 2).tolist())
                pixels = synthetic_images(name, 1, height, width)[0]
                Image.fromarray(pixels).save(folder / f"{name}.JPEG", quality=92)
    return root


def write_cifar(root: Path, count: int = 24) -> Path:
    """``root/cifar-100-python`` with ``count`` training and 12 test images of three classes."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for split, images in (("train", count), ("test", 12)):
        pixels = synthetic_images(f"cifar {split}", images, 32).transpose(0, 3, 1, 2).reshape(images, 3072)
        content = {"data": pixels, "fine_labels": [i % CLASSES for i in range(images)]}
        (folder / split).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple", "bear", "cup"]}))
    return root


def fastreg(*words: object, cwd: Path) -> str:
    """Runs ``python -m fastreg WORDS`` with this process's environment and returns its standard output."""
    environment = {key: value for key, value in os.environ.items() if key not in ("FASTREG_DATA", "WORLD_SIZE", "RANK")}
    command = [sys.executable, "-m", "fastreg", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":  # tiny.py ROOT writes ROOT/cifar100 and ROOT/imagenet
    write_cifar(Path(sys.argv[1]) / "cifar100")
    write_folders(Path(sys.argv[1]) / "imagenet")
