"""Data sets as sources: the stored bytes (or canvas) and the label of every sample of one split, in a fixed order."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.address import is_address
from fastreg.pipelines.file_list import SMALL, FileList, open_list

CONTENT_SAMPLES = 64  # samples whose bytes stand for the whole set where it carries no checksums
MAX_CLASSES = 1_000_000  # for a set whose files have no number of classes: a larger label is damage
MARKER = "SAMPLE.json"  # file in the root of every set that `fastreg data sample` wrote


class Dataset(NamedTuple):
    """A data set by name, independent of its location.

    Attributes:
        layout: ``"folder"`` (class folders, ``.beton`` file or shards), ``"cifar"`` (pickles) or ``"svhn"`` (``.mat``).
        mean: RGB mean on the 0-1 scale.
        std: RGB standard deviation on the 0-1 scale.
        classes: Number of classes of the full set; None: as many as are stored.
        sample: Whether ``fastreg data sample`` writes a small one.
        fetch: Whether ``fastreg data fetch`` downloads it.
    """

    layout: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: int | None = None
    sample: bool = False
    fetch: bool = False


class Source:
    """One split of a data set. Subclasses implement ``read`` and ``describe``.

    Attributes:
        name: The data set's name.
        split: ``"train"`` or ``"val"``.
        root: The folder or file that holds it; text for an address or a pattern.
        mean, std: RGB statistics of ``Dataset``.
        layout: Layout of ``Dataset``.
        labels: int64 [N].
        classes: Class names; the index is the label.
        counts: The number of images and classes, and digests of names and sizes, as one line.
        canvas: (height, width) if every sample is a uint8 array of that size, else None.
        is_sample: Whether ``fastreg data sample`` wrote it.
    """

    def __init__(
        self,
        name: str,
        split: str,
        root: Path | str,
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
        local = None if is_address(root) else Path(root)
        self.is_sample = local is not None and ((local if local.is_dir() else local.parent) / MARKER).is_file()
        if len(self.labels) == 0:
            raise InputError(f"{root} holds no images of split {split!r}: set `data_dir` to a filled data set.")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise InputError(
                f"{root} has label {low if low < 0 else high} but {len(self.classes)} classes: the file does not "
                f"belong to this data set, or was written with other labels; write it anew."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def form(self) -> str:
        """How samples are stored, a key of ``loader_table.FORMS``."""
        return "images" if self.canvas is None else "canvases"

    @cached_property
    def fingerprint(self) -> str:
        """``counts`` and a digest of the content; two sets with one fingerprint are taken to be the same.

        The digest covers every sample of arrays in memory and of ``.beton`` files that fastreg wrote, which have
        checksums. For class folders, ImageNet's tar files and FFCV's own files it covers ``CONTENT_SAMPLES`` samples at
        even distances, and for shards a few samples of each. A changed image outside these samples is noticed only if
        its name or size changed too.
        """
        return f"{self.counts}, content {self.content()[:12]}"

    def content(self) -> str:
        """Digest of the stored bytes, in hexadecimal."""
        digest = hashlib.sha256()
        for index in np.unique(np.linspace(0, len(self) - 1, CONTENT_SAMPLES).astype(int)).tolist():
            with contextlib.suppress(OSError, ValueError):  # the decoder reports a broken sample
                stored: Any = self.read(index)
                digest.update(stored)
        return digest.hexdigest()

    def check(self, index: int) -> None:
        """Raise ValueError if a sample's bytes differ from its stored checksum; without checksums do nothing."""

    def read(self, index: int) -> bytes | np.ndarray:
        """Read one sample.

        Args:
            index: Position in the set, from 0 to N - 1.

        Returns:
            The encoded image, or the stored canvas as uint8 [H, W, 3].

        Raises:
            OSError, ValueError: The sample cannot be read.
        """
        raise NotImplementedError

    def gather(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Copy the canvases of samples ``indices``, int64 [b], into ``out``, uint8 [b, H, W, 3]."""
        for row, index in zip(out, indices.tolist()):
            row[...] = self.read(index)

    def describe(self, index: int) -> str:
        """The file (and member) that holds a sample, for messages."""
        return f"sample {index} of {self.root}"

    def key(self, index: int) -> str:
        """The sample's own name, which stays when samples are added; without names, its position."""
        return str(index)

    def renumber(self, classes: Sequence[str], outputs: Mapping[str, int]) -> None:
        """Give the samples other labels.

        Args:
            classes: The new class names; the index is the label.
            outputs: The new label of each present class name.
        """
        self.labels = np.array([outputs[name] for name in self.classes], np.int64)[self.labels]
        self.classes = tuple(classes)


class FolderSource(Source):
    """Class folders: ``root/<split>/<class>/*.JPEG``.

    Classes are the sorted folder names. If there is a training split, those of the validation split are the training
    split's, and it may lack images of some. Images and their order are those of torchvision's ImageFolder, subfolders
    of a class included; names that begin with a dot are ignored.

    Args:
        root, name, split, spec: Root, name, split and row of the data set.
        folder: The folder of the class folders; by default ``root/<split>``.
        files: Its list of images, if it is known already.
        cache_dir: Folder for the index of a folder that cannot be written.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        split: str,
        spec: Dataset,
        *,
        folder: Path | None = None,
        files: FileList | None = None,
        cache_dir: str | Path | None = None,
    ):
        base = folder or root / split
        if not base.is_dir():
            raise InputError(
                f"no folder {base}: store a data set as {root}/train/<class>/*.JPEG and {root}/val/<class>/*.JPEG"
                ", or as train.beton and val.beton, or as shards whose names contain train and val (.tar, .parquet)."
            )
        self._base, self.files = base, files or open_list(base, cache_dir)
        classes: Sequence[str] = self.files.classes
        labels, counts = self.files.image_labels(), self._counts()
        if split == "val" and base != root / "train" and (root / "train").is_dir():
            classes, labels = _numbered_as(_folders(root / "train"), classes, labels, base, root / "train")
        super().__init__(name, split, root, spec, labels, classes, counts)

    def _counts(self) -> str:
        n = len(self.files)
        try:
            sizes = [os.stat(self._base / self.files.path(k)).st_size for k in range(n)] if n <= SMALL else None
        except OSError as error:
            raise InputError(f"cannot list {error.filename}: {error.strerror}; repair or remove it.") from None
        return _counts(n, len(self.files.classes), self.files.digest, sizes)

    def key(self, index: int) -> str:
        return self.files.path(index)

    def read(self, index: int) -> bytes:
        # a pipe named as an image would wait for its writer; regular files ignore the flag
        descriptor = os.open(self._base / self.files.path(index), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return file.read()

    def describe(self, index: int) -> str:
        return str(self._base / self.files.path(index))


def _folders(base: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not entry.name.startswith("."))


def counts_of(classes: Sequence[str], files: Sequence[Sequence[tuple[str, int]]]) -> str:
    """``Source.counts`` of encoded images.

    Args:
        classes: Class names.
        files: (name, bytes) of every image, class by class.

    Returns:
        The numbers of images, classes and bytes, and digests of names and sizes; of names only for more than ``SMALL``
        images, because class folders are listed without the sizes.
    """
    names = hashlib.sha256(b"\0".join(name.encode() for name in classes))
    for label, row in enumerate(files):
        for file, _ in row:
            names.update(f"{label}/{file}\0".encode())
    sizes = [size for row in files for _, size in row]
    return _counts(len(sizes), len(classes), names.hexdigest(), sizes if len(sizes) <= SMALL else None)


def _counts(images: int, classes: int, names: str, sizes: Sequence[int] | None) -> str:
    if sizes is None:
        return f"{images} images, {classes} classes, names {names[:12]}"
    digest = hashlib.sha256(b"".join(size.to_bytes(8, "little") for size in sizes)).hexdigest()
    return f"{images} images, {classes} classes, {sum(sizes)} bytes, names {names[:12]}, sizes {digest[:12]}"


def _numbered_as(
    train: list[str], classes: Sequence[str], labels: np.ndarray, base: Path, train_base: Path
) -> tuple[list[str], np.ndarray]:
    """Classes and labels of a validation split, numbered as in the training split."""
    strange = sorted(set(classes) - set(train))
    if strange:
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise InputError(f"{base} has class {strange[0]!r}{more} but {train_base} has not: nothing is trained for it.")
    number = {name: k for k, name in enumerate(train)}
    return train, np.array([number[name] for name in classes])[labels]


def same_data(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same data. Those of earlier versions have the sizes of large sets too."""
    first, second = _comparable(one, other)
    return first == second


def _comparable(one: str, other: str) -> list[list[str]]:
    """The values of two fingerprints, without sizes and bytes if only one has them."""
    rows = [text.split(", ") for text in (one, other)]
    named = all(any(value.startswith("names ") for value in row) for row in rows)
    if named and not all(any(value.startswith("sizes ") for value in row) for row in rows):
        rows = [[value for value in row if not value.startswith("sizes ") and value[-6:] != " bytes"] for row in rows]
    return rows


def check_fingerprint(then: str, now: str, where: str | Path) -> None:
    """Refuse a data set that changed since a run began.

    Args:
        then: Fingerprint when the run began.
        now: Fingerprint of the data at hand.
        where: The data's folder or file, for the message.

    Raises:
        InputError: The fingerprints differ; the message names the values that changed.
    """
    if same_data(then, now):
        return
    changed = [f"{a!r} is now {b!r}" for a, b in zip(*_comparable(then, now)) if a != b]
    raise InputError(
        f"the data at {where} changed since this run began (fingerprint: "
        f"{'; '.join(changed) or f'{then!r} is now {now!r}'}): restore it, or give the new run another `name`."
    )
