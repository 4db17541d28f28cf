"""The two official layouts of corrupted sets, written whole and read back before they count as written."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from PIL import Image

from fastreg.errors import RunError
from fastreg.runs import atomic_write

QUALITY = 85  # ImageNet-C's


def file_names(describe: Sequence[str], classes: Sequence[str], labels: Sequence[int]) -> list[str]:
    """``<class>/<name>.JPEG`` per sample: its own file name where it has one of its own, else its position."""
    stems = [Path(words).stem if os.path.isfile(words) else "" for words in describe]
    own = all(stems) and len(set(zip(stems, labels))) == len(stems)
    return [f"{classes[label]}/{stems[i] if own else f'{i:08d}'}.JPEG" for i, label in enumerate(labels)]


def write_folder(root: Path, files: Sequence[str], batches: Iterable[np.ndarray], pool: Executor) -> str:
    """Write uint8 [B, S, S, 3] batches as JPEG files under ``root``; the digest of all their bytes, in order.

    Raises RunError when a file cannot be written, or does not read back as what was encoded.
    """
    seen, done = hashlib.sha256(), 0
    for images in batches:
        for data in pool.map(_jpeg, images):
            path = root / files[done]
            temporary = path.with_name(f".{path.name}.tmp")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(data)
                os.replace(temporary, path)
            except OSError as error:
                raise RunError(f"cannot write {path}: {error.strerror}; the same command continues there.") from error
            seen.update(data)
            done += 1
    again = hashlib.sha256()
    for file in files:
        again.update((root / file).read_bytes())
    if done != len(files) or again.digest() != seen.digest():
        raise RunError(f"{root} does not read back as it was written: check the disk, then run the same command again.")
    return seen.hexdigest()


def write_array(path: Path, shape: tuple[int, ...], batches: Iterable[np.ndarray]) -> str:
    """Write uint8 batches, in order, as one .npy array; the digest of its pixels.

    Raises RunError when it cannot be written, or does not read back.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    seen, done = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for images in batches:
                data = np.ascontiguousarray(images).tobytes()
                file.write(data)
                seen.update(data)
                done += len(images)
            file.flush()
            os.fsync(file.fileno())
        again = hashlib.sha256(np.load(temporary, mmap_mode="r").data)
        if done != shape[0] or again.digest() != seen.digest():
            raise RunError(f"{path} does not read back as it was written: check the disk, then run the command again.")
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; the same command continues there.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return seen.hexdigest()


def write_labels(path: Path, labels: np.ndarray) -> None:
    """labels.npy, int64, as long as the arrays."""
    buffer = io.BytesIO()
    np.save(buffer, labels.astype(np.int64))
    atomic_write(path, buffer.getvalue())


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
