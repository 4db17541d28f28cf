"""The images of class folders: listed once without a stat per file, packed, and kept in an index beside them.

An index holds the modification time of every folder. It is read only if all of them are unchanged, and written only if
the newest is old enough that a later change of the folder must change it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastreg.errors import InputError, RunError
from fastreg.files import atomic_write
from fastreg.log import log
from fastreg.pipelines.shard_cache import cache_folder

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")  # torchvision's
_KNOWN = frozenset([*EXTENSIONS, *(one.upper() for one in EXTENSIONS)])  # a faster test of most names
VERSION = 1
INDEX = ".fastreg-files"
SMALL = 4096  # images: smaller sets are listed in milliseconds, and have no index; their sizes enter the fingerprint
TEXT = 1 << 18  # bytes of names that are measured together
TICK_NS = 2_000_000_000  # coarsest modification times of common file systems


class FileList(NamedTuple):
    """The images of class folders; about 25 bytes per image, most of them its name.

    Attributes:
        classes: Sorted names of the class folders.
        folders: Folders with images, relative to the set: a class folder or one below it.
        labels: int32 [F], class of each folder.
        starts: int64 [F + 1], number of the first image of each folder.
        ends: uint32 or uint64 [N], end of each image's name in ``names``.
        names: uint8, the file names in UTF-8, one after another.
        digest: Hexadecimal digest of the names of classes and images.
        times: Modification time in ns of every folder, also of those without images.
    """

    classes: tuple[str, ...]
    folders: tuple[str, ...]
    labels: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    names: np.ndarray
    digest: str
    times: dict[str, int]

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, index: int) -> str:
        """The path of an image, relative to the set."""
        if not 0 <= index < len(self.ends):
            raise IndexError(f"there is no image {index} among {len(self.ends)}")
        folder = int(np.searchsorted(self.starts, index, "right")) - 1
        name = self.names[int(self.ends[index - 1]) if index else 0 : int(self.ends[index])]
        return f"{self.folders[folder]}/{name.tobytes().decode()}"

    def image_labels(self) -> np.ndarray:
        """int64 [N]"""
        return np.repeat(self.labels.astype(np.int64), np.diff(self.starts))


def open_list(base: Path, cache_dir: str | Path | None = None) -> FileList:
    """The images below ``base``, from an index that is still true, else listed.

    Classes are the sorted folder names. Images are sorted by folder, then name; subfolders of a class are included, and
    names that begin with a dot are ignored.

    Args:
        base: The folder of the class folders.
        cache_dir: Folder for the index if ``base`` cannot be written; by default the user's cache folder.

    Raises:
        InputError: There are no class folders, one has no images, or one cannot be listed.
    """
    try:
        classes = sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and entry.name[0] != ".")
        if not classes:
            raise InputError(f"{base} has no class folders: put images into {base}/<class>/.")
        paths = index_paths(base, cache_dir)
        for path in paths:
            kept = read_index(path)
            if kept is not None and kept.classes == tuple(classes) and _unchanged(base, kept.times):
                return kept
        begun = time.time_ns()
        found = _list(base, classes)
    except OSError as error:
        raise InputError(f"cannot list {error.filename}: {error.strerror}; repair or remove it.") from None
    except UnicodeEncodeError as error:
        raise InputError(f"{base} holds a name that is not UTF-8, {error.object!a}: rename it.") from None
    if len(found) > SMALL and max(found.times.values()) < begun - TICK_NS:
        for path in paths:
            try:
                atomic_write(path, b"".join(packed(found)))
                break
            except RunError as error:
                log.debug("%s", error)
    return found


def index_paths(base: Path, cache_dir: str | Path | None = None) -> list[Path]:
    """Where the index of a folder may be: in it, or in the cache folder."""
    key = hashlib.sha256(os.fsencode(os.path.realpath(base))).hexdigest()[:16]
    return [base / INDEX, cache_folder(cache_dir) / "indexes" / f"{INDEX}-{key}"]


def _unchanged(base: Path, times: dict[str, int]) -> bool:
    try:
        return all(os.stat(base / folder).st_mtime_ns == then for folder, then in times.items())
    except OSError:
        return False


def _list(base: Path, classes: list[str]) -> FileList:
    folders, labels, counts, starts, texts, blobs, lengths = [], [], [], [], [], [], []
    times: dict[str, int] = {}
    digest = hashlib.sha256(b"\0".join(name.encode() for name in classes))
    for label, name in enumerate(classes):
        below = sorted(_walk(os.path.join(base, name), name, f"{label}/", times))
        if not any(files for _, _, files, _ in below):
            raise InputError(
                f"class folder {base / name} has no images ({', '.join(EXTENSIONS)}): fill it, or remove it from every "
                "split."
            )
        for folder, start, files, text in below:
            if not files:
                continue
            try:
                texts.append(text.encode())
            except UnicodeEncodeError:
                for file in files:
                    f"{start}{file}".encode()  # raises it again, for one file
            folders.append(folder)
            labels.append(label)
            counts.append(len(files))
            starts.append(len(start.encode()))
            blobs.append("".join(files).encode())
        if label == len(classes) - 1 or sum(map(len, texts)) > TEXT:  # small folders are measured together
            together = b"".join(texts)
            digest.update(together)
            stops = np.flatnonzero(np.frombuffer(together, np.uint8) == 0)
            paths = np.diff(stops, prepend=-1) - 1
            lengths.append((paths - np.repeat(starts, counts[-len(starts) :])).astype(np.uint16))
            texts, starts = [], []
    ends = np.cumsum(np.concatenate(lengths), dtype=np.int64)
    return FileList(
        tuple(classes),
        tuple(folders),
        np.array(labels, np.int32),
        np.concatenate([[0], np.cumsum(counts)]),
        ends.astype(np.uint32 if ends[-1] < 1 << 32 else np.uint64),
        np.frombuffer(b"".join(blobs), np.uint8),
        digest.hexdigest(),
        times,
    )


def _walk(path: str, folder: str, start: str, times: dict[str, int]) -> Iterator[tuple[str, str, list[str], str]]:
    """A folder and all below it, without a stat per file: folder, ``start``, sorted names of its images, their text.

    The text has ``start`` (label and subfolder), a name and a null for each image; it is hashed.
    """
    status = os.stat(path)
    times[folder] = status.st_mtime_ns
    if status.st_nlink == 2:  # no folders in it (1: the file system does not count them)
        files = sorted(os.listdir(path))
        text = f"\0{start}".join(files)
        if _are_images(files, f"{text}\0"):
            yield folder, start, files, f"{start}{text}\0"
            return
    files = []
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{folder}/{name}", f"{start}{name}/", times)
            elif name[name.rfind(".") :] in _KNOWN or name.lower().endswith(EXTENSIONS):
                files.append(name)
    files.sort()
    text = f"\0{start}".join(files)
    yield folder, start, files, f"{start}{text}\0"


def _are_images(names: list[str], text: str) -> bool:
    """Whether sorted names, joined in a text, have usual extensions, and none begins with a dot."""
    dot = bisect_left(names, ".")
    if not names or names[min(dot, len(names) - 1)][0] == ".":
        return False
    first = os.path.splitext(names[0])[1]
    left = len(names) - (text.count(f"{first}\0") if first in _KNOWN else 0)
    return left == 0 or left == sum(text.count(f"{one}\0") for one in _KNOWN if one != first)


def packed(files: FileList) -> Iterator[bytes]:
    """The content of an index: one line of JSON, then the arrays."""
    about = {
        "version": VERSION,
        "classes": files.classes,
        "folders": files.folders,
        "digest": files.digest,
        "times": files.times,
        "images": len(files),
        "bytes": len(files.names),
    }
    yield json.dumps(about).encode() + b"\n"
    for array in (files.labels.astype("<i4"), files.starts.astype("<i8"), files.ends.astype(_ends(len(files.names)))):
        yield array.tobytes()
    yield files.names.tobytes()


def _ends(size: int) -> str:
    return "<u4" if size < 1 << 32 else "<u8"


def read_index(path: Path) -> FileList | None:
    """The list in an index; None if it is missing, of another version, or damaged."""
    try:
        with open(path, "rb") as file:
            about: Any = json.loads(file.readline(1 << 28))
            if about["version"] != VERSION:
                return None
            classes, folders = tuple(about["classes"]), tuple(about["folders"])
            times, digest = about["times"], about["digest"]
            n, size, f = int(about["images"]), int(about["bytes"]), len(folders)
            kinds: list[np.dtype] = [np.dtype(text) for text in ("<i4", "<i8", _ends(size), "u1")]
            counts = [f, f + 1, n, size]
            total = sum(kind.itemsize * count for kind, count in zip(kinds, counts))
            if min(counts) < 1 or os.fstat(file.fileno()).st_size - file.tell() != total:
                return None
            labels, starts, ends, names = (np.fromfile(file, kind, count) for kind, count in zip(kinds, counts))
        sound = all(type(text) is str for text in (*classes, *folders, *times, digest))
        sound = sound and all(type(then) is int for then in times.values())
        sound = sound and labels.min() >= 0 and labels.max() < len(classes)
        sound = sound and starts[0] == 0 and starts[-1] == n and bool((starts[1:] > starts[:-1]).all())
        sound = sound and ends[-1] == size and bool((ends[1:] > ends[:-1]).all())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return FileList(classes, folders, labels, starts, ends, names, digest, times) if sound else None
