"""A source gives the stored bytes (or canvas) and the label of every sample of one split, in a fixed order."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastreg.errors import InputError

if TYPE_CHECKING:
    from fastreg.pipelines.datasets import Dataset

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")  # torchvision's
LOOK = 64  # samples whose content stands for the set's where there are no checksums
MARKER = "SAMPLE.json"  # lies in the root of what `fastreg data sample` wrote


class Source:
    """One split of a data set.

    ``labels`` int64 [N]; ``classes`` names, index = label; ``counts`` says in words and digests how much of what lies
    there; ``canvas`` (h, w) when every sample is a uint8 array of that one size, else None.
    """

    def __init__(
        self,
        name: str,
        split: str,
        root: Path,
        spec: Dataset,
        labels: np.ndarray,
        classes: Iterable[str],
        counts: str,
        canvas: tuple[int, int] | None = None,
    ):
        self.name, self.split, self.root = name, split, root
        self.mean, self.std, self.layout = spec.mean, spec.std, spec.layout
        self.labels, self.classes = np.ascontiguousarray(labels, dtype=np.int64), tuple(classes)
        self.counts, self.canvas = counts, canvas
        self.is_sample = ((root if root.is_dir() else root.parent) / MARKER).is_file()
        if len(self.labels) == 0:
            raise InputError(f"{root} holds no images of split {split!r}: point --data-dir at a filled data set.")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise InputError(
                f"{root} has label {low if low < 0 else high} but {len(self.classes)} classes: the file does not "
                f"belong to this data set, or was written with other labels; write it anew."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """What identifies the set: ``counts``, and a digest of what is stored.

        The digest covers every sample of arrays in memory and of `.beton` files that fastreg wrote, which carry
        checksums. Elsewhere (class folders, tar files, FFCV's own files) it covers ``LOOK`` samples spread evenly over
        the set: another image of the same name and size is seen only when it is one of them.
        """
        return f"{self.counts}, content {self.content()[:12]}"

    def content(self) -> str:
        """A digest of what is stored, in hexadecimal."""
        digest = hashlib.sha256()
        for index in np.unique(np.linspace(0, len(self) - 1, LOOK).astype(int)).tolist():
            with contextlib.suppress(OSError, ValueError):  # who decodes it says what is wrong with it
                digest.update(self.read(index))
        return digest.hexdigest()

    def check(self, index: int) -> None:
        """Raise ValueError when the stored bytes of a sample are not those that were written, where that is known."""

    def read(self, index: int) -> bytes | np.ndarray:
        """Encoded image bytes, or the stored canvas uint8 [H, W, 3]. Raises OSError or ValueError when it cannot."""
        raise NotImplementedError

    def gather(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Copy the canvases of samples into the rows of ``out``, uint8 [b, H, W, 3]."""
        for row, index in zip(out, indices.tolist()):
            row[...] = self.read(index)

    def describe(self, index: int) -> str:
        """Where sample ``index`` lies, for messages."""
        return f"sample {index} of {self.root}"


class FolderSource(Source):
    """``root/<split>/<class>/*.JPEG``: classes are the sorted folder names of the training split when it is there.

    Images and their order are those of torchvision's ImageFolder, subfolders of a class included; names that begin with
    a dot are left out.
    """

    def __init__(self, root: Path, name: str, split: str, spec: Dataset):
        base = root / split
        if not base.is_dir():
            raise InputError(
                f"no folder {base}: a data set lies as {root}/train/<class>/*.JPEG and {root}/val/<class>/*.JPEG"
                f"{', or as train.beton and val.beton' if name == 'imagenet' else ''}."
            )
        classes = _folders(base)
        if not classes:
            raise InputError(f"{base} has no class folders: images must lie in {base}/<class>/.")
        if split == "val" and (root / "train").is_dir():
            _compare(classes, _folders(root / "train"), base, root / "train")
        self._base = base
        try:
            files = [_images(base / folder) for folder in classes]
            counts = counts_of(classes, files)
        except OSError as error:
            raise InputError(f"cannot list {error.filename}: {error.strerror}; mend or remove it.") from None
        except UnicodeEncodeError as error:
            raise InputError(f"{base} holds a name that is not UTF-8, {error.object!a}: rename it.") from None
        self._files = [f"{folder}/{file}" for folder, row in zip(classes, files) for file, _ in row]
        labels = np.repeat(np.arange(len(classes)), [len(row) for row in files])
        super().__init__(name, split, root, spec, labels, classes, counts)

    def read(self, index: int) -> bytes:
        with open(self._base / self._files[index], "rb") as file:
            return file.read()

    def describe(self, index: int) -> str:
        return str(self._base / self._files[index])


def _folders(base: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> list[tuple[str, int]]:
    """(name, bytes) of the images of a class, folder by folder, each sorted; names are relative to the class."""
    images = sorted(_walk(folder), key=lambda image: image[0].rpartition("/")[::2])
    if not images:
        raise InputError(
            f"class folder {folder} has no images ({', '.join(EXTENSIONS)}): fill it, or remove it from every split."
        )
    return images


def _walk(folder: Path | str, below: str = "") -> Iterator[tuple[str, int]]:
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{below}{entry.name}/")
        elif entry.name.lower().endswith(EXTENSIONS):
            yield below + entry.name, entry.stat().st_size


def counts_of(classes: Sequence[str], files: Sequence[Sequence[tuple[str, int]]]) -> str:
    """``Source.counts`` of image files: how many, and digests of their names and sizes, class by class."""
    names, sizes = hashlib.sha256(b"\0".join(name.encode() for name in classes)), hashlib.sha256()
    for label, row in enumerate(files):
        for file, size in row:
            names.update(f"{label}/{file}\0".encode())
            sizes.update(size.to_bytes(8, "little"))
    count, total = sum(map(len, files)), sum(size for row in files for _, size in row)
    return (
        f"{count} images, {len(classes)} classes, {total} bytes, "
        f"names {names.hexdigest()[:12]}, sizes {sizes.hexdigest()[:12]}"
    )


def _compare(classes: list[str], train: list[str], base: Path, train_base: Path) -> None:
    for extra, has, lacks in (
        (sorted(set(train) - set(classes)), train_base, base),
        (sorted(set(classes) - set(train)), base, train_base),
    ):
        if extra:
            more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            raise InputError(f"{has} has class {extra[0]!r}{more} but {lacks} has not: they must be the same.")


def check_fingerprint(then: str, now: str, where: str | Path) -> None:
    """Refuse a data set that changed since a run began: raises InputError saying which parts of the fingerprint do."""
    if then == now:
        return
    changed = [f"{a!r} is now {b!r}" for a, b in zip(then.split(", "), now.split(", ")) if a != b]
    raise InputError(
        f"the data at {where} changed since this run began (fingerprint: "
        f"{'; '.join(changed) or f'{then!r} is now {now!r}'}): restore it, or start a new run with --name."
    )
