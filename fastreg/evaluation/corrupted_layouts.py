"""The two published layouts of corrupted sets. A folder or array is read back before it counts as written."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from fastreg.errors import InputError, RunError
from fastreg.files import atomic_write, replacing
from fastreg.pipelines.npy import open_npy

QUALITY = 85  # ImageNet-C's


def file_names(describe: Sequence[str], classes: Sequence[str], labels: Sequence[int]) -> list[str]:
    """``<class>/<name>.JPEG`` per sample, named by its file if file names are unique, otherwise by its position.

    Raises InputError for a class name that is no name of a folder.
    """
    for name in classes:
        if name in ("", ".", "..") or {"/", "\0"} & set(name):
            raise InputError(f"class {name!r} cannot be the name of a folder: rename it, or give a class map.")
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
            finally:
                with suppress(OSError):
                    temporary.unlink()
            seen.update(data)
            done += 1
    os.sync()  # once: tens of thousands of files, each waited for, would take longer than all the rest
    if done != len(files) or digest_of_folder(root, files) != seen.hexdigest():
        raise RunError(f"{root} does not read back as it was written: check the disk, then run the same command again.")
    return seen.hexdigest()


def digest_of_folder(root: Path, files: Sequence[str]) -> str:
    """The digest that ``write_folder`` returns, from the stored files; "" if one of them is missing."""
    seen = hashlib.sha256()
    try:
        for file in files:
            seen.update((root / file).read_bytes())
    except OSError:
        return ""
    return seen.hexdigest()


def write_array(path: Path, shape: tuple[int, ...], batches: Iterable[np.ndarray]) -> str:
    """Write uint8 batches, in order, as one .npy array; the digest of its pixels.

    Raises RunError when it cannot be written, or does not read back.
    """
    seen, done = hashlib.sha256(), 0
    with replacing(path) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for images in batches:
            data = np.ascontiguousarray(images).tobytes()
            file.write(data)
            seen.update(data)
            done += len(images)
        file.flush()
        if done != shape[0] or digest_of_array(Path(file.name)) != seen.hexdigest():
            raise RunError(f"{path} does not read back as it was written: check the disk, then run the command again.")
    return seen.hexdigest()


def digest_of_array(path: Path) -> str:
    """The digest that ``write_array`` returns, from the stored file; "" if there is no complete array."""
    seen = hashlib.sha256()
    try:
        rows = open_npy(path)
        for first in range(0, len(rows), 1000):
            seen.update(np.ascontiguousarray(rows[first : first + 1000]).data)
    except (OSError, InputError, RunError, TypeError):
        return ""
    return seen.hexdigest()


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels.npy, int64, as long as the arrays."""
    buffer = io.BytesIO()
    np.save(buffer, labels.astype(np.int64))
    atomic_write(path, buffer.getvalue())


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
