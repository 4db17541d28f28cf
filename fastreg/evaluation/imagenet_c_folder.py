"""The stored images of one corruption at one severity in an ImageNet-C folder, which may be incomplete."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np

from fastreg.errors import InputError
from fastreg.evaluation.corrupted_layouts import file_names
from fastreg.evaluation.eval_data import EvalData, listed
from fastreg.pipelines.datasets import DATASETS
from fastreg.pipelines.file_list import EXTENSIONS
from fastreg.pipelines.image import header
from fastreg.pipelines.source import FolderSource, Source

Row = list[tuple[str, int]]  # (name, bytes) of the images of a class, sorted


class WrongSize(ValueError):
    """An image has another size. If it is the folder's first image, the folder is made for another size."""


class ImageNetCFolder(Source):
    """Images in folders named like the data's classes. Labels are the data's, also if classes are missing.

    ``differs``: the differences from the data's files, in words; empty if only the number of images may differ.
    """

    def __init__(self, base: Path, side: int, classes: Sequence[str], rows: Sequence[Row], differs: str):
        self.base, self.side, self.differs = base, side, differs
        self.files = [base / name / file for name, row in zip(classes, rows) for file, _ in row]
        labels = np.repeat(np.arange(len(classes)), [len(row) for row in rows])
        fingerprint = listed((f"{name}/{file}", size) for name, row in zip(classes, rows) for file, size in row)
        super().__init__("imagenet-c", base.name, base.parent, DATASETS["imagenet"], labels, classes, fingerprint)

    def read(self, index: int) -> bytes:
        """The file's bytes; raises WrongSize for an image of another size, one of ``image.ERRORS`` for a broken one."""
        stored = self.files[index].read_bytes()
        size = header(stored)
        if (size.height, size.width) != (self.side, self.side):
            raise WrongSize(f"it is {size.width} x {size.height} px, not {self.side}")
        return stored

    def describe(self, index: int) -> str:
        return str(self.files[index])


def open_imagenet_c_folder(
    base: Path, eval_data: EvalData, names: Set[str] | None, side: int
) -> ImageNetCFolder | None:
    """The images in ``base/<class>/``; None without an image of the data's classes. ``names``: see :func:`names_of`.

    ``side``: of the stored images.

    Raises InputError if the data's classes have no names and ``base`` has another number of classes.
    """
    found = sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not entry.name.startswith("."))
    folders = {name: _images(base / name) for name in found}
    if not eval_data.names and len(folders) != eval_data.classes:
        raise InputError(f"{base} has {len(folders)} classes, the data {eval_data.classes}: extract the folder again.")
    classes = eval_data.names or tuple(folders)
    rows = [folders.get(name, []) for name in classes]
    if not any(rows):
        return None
    known = set(classes)
    stored = {f"{name}/{os.path.splitext(file)[0]}.JPEG" for name, row in zip(classes, rows) for file, _ in row}
    differs = [
        counted(
            [name for name, row in zip(classes, rows) if not row], "class without images", "classes without images"
        ),
        counted([name for name in folders if name not in known], "folder that is no class", "folders that are none"),
        counted(sorted((names or stored) - stored), "image lost", "images lost"),
        counted(sorted(stored - (names or stored)), "image that is not the data's", "images that are not the data's"),
    ]
    return ImageNetCFolder(base, side, classes, rows, ", ".join(filter(None, differs)))


def names_of(eval_data: EvalData) -> Set[str] | None:
    """``<class>/<name>.JPEG`` of every image of data in class folders; None for other data."""
    if not isinstance(eval_data.source, FolderSource):
        return None
    described = [eval_data.source.describe(i) for i in range(len(eval_data))]
    return set(file_names(described, eval_data.names, eval_data.labels.tolist()))


def _images(folder: Path) -> Row:
    images = [e for e in os.scandir(folder) if e.name.lower().endswith(EXTENSIONS) and not e.name.startswith(".")]
    return sorted((entry.name, entry.stat().st_size) for entry in images)


def counted(names: Sequence[str], one: str, more: str) -> str:
    """``1 image lost, cat/a.JPEG`` or ``3 images lost, such as cat/a.JPEG``; empty for none."""
    if len(names) == 1:
        return f"1 {one}, {names[0]}"
    return f"{len(names):,} {more}, such as {names[0]}" if names else ""
