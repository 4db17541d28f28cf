"""SVHN's cropped digits (32 x 32) from its two MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.cifar import ArraySource
from fastreg.pipelines.matlab import load_mat
from fastreg.pipelines.source import Dataset


def open_svhn(name: str, split: str, root: Path, spec: Dataset) -> ArraySource:
    """Open ``train_32x32.mat`` or, for split "val", ``test_32x32.mat``; label 10, the digit 0, becomes 0."""
    path = root / f"{'train' if split == 'train' else 'test'}_32x32.mat"
    if not path.is_file():
        raise InputError(f"{path} is missing: `fastreg data fetch svhn` downloads it.")
    content = load_mat(path)
    images, labels = content.get("X"), content.get("y")
    if not isinstance(images, np.ndarray) or images.shape[:3] != (32, 32, 3) or not isinstance(labels, np.ndarray):
        raise InputError(f"{path} lacks SVHN's arrays X [32, 32, 3, N] and y [N, 1]: fetch it anew.")
    images = np.ascontiguousarray(images.transpose(3, 0, 1, 2).astype(np.uint8))
    digits = labels.ravel().astype(np.int64) % 10
    return ArraySource(
        images, name, split, root, spec, digits, map(str, range(10)), f"{len(images)} images, 10 classes"
    )
