"""ImageNet as published, two tar files and the development kit, read in place without unpacking."""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.file_list import EXTENSIONS
from fastreg.pipelines.image import reason
from fastreg.pipelines.matlab import parse_mat
from fastreg.pipelines.source import Dataset, Source, counts_of
from fastreg.pipelines.tar_scan import Member, scan_tar

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


class TarSource(Source):
    """ImageNet's own tar file of one split; samples, order and fingerprint equal those of the unpacked class folders.

    Training: a tar of one tar per class. If the development kit is beside it, the classes must be those of the kit.
    Validation: a tar of all images, whose classes are in the kit.

    Raises:
        InputError: A tar file is cut short or not ImageNet's.
    """

    def __init__(self, path: Path, name: str, split: str, spec: Dataset):
        self.path, root = path, path.parent
        kit = path.with_name(DEVKIT)
        truth = _ground_truth(kit, path) if split != "train" or kit.is_file() else None
        try:
            with open(path, "rb") as file:
                members = _members(file, 0, path.stat().st_size)
                if split == "train":
                    classes = {
                        member.name.removesuffix(".tar"): _members(file, member.offset, member.offset + member.size)
                        for member in members
                    }
                else:
                    classes = _by_class(members, truth or [], path)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot read {self.path} as ImageNet's tar file ({reason(error)}): fetch it anew."
            ) from None
        if truth is not None and set(truth) != set(classes):
            raise InputError(f"{path} has {len(classes)} classes, not the {len(set(truth))} of {kit}: fetch it anew.")
        names = sorted(classes)
        images = [sorted(f for f in classes[name] if f[0].lower().endswith(EXTENSIONS)) for name in names]
        if not names or not all(images):
            raise InputError(f"{self.path} does not hold ImageNet's {split} images: fetch it anew.")
        self._files = [
            (f"{name}/{file}", offset, size) for name, row in zip(names, images) for file, offset, size in row
        ]
        labels = np.repeat(np.arange(len(names)), [len(row) for row in images])
        counts = counts_of(names, [[(file, size) for file, _, size in row] for row in images])
        super().__init__(name, split, root, spec, labels, names, counts)
        self._descriptor = os.open(self.path, os.O_RDONLY)

    def read(self, index: int) -> bytes:
        _, offset, size = self._files[index]
        return os.pread(self._descriptor, size, offset)

    def key(self, index: int) -> str:
        return self._files[index][0]

    def describe(self, index: int) -> str:
        return f"{self.path}:{self._files[index][0]}"

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _members(file: IO[bytes], offset: int, end: int) -> list[Member]:
    """The members of the tar between two offsets of the file, without the folders in their names."""
    return [member._replace(name=Path(member.name).name) for member in scan_tar(file.fileno(), offset, end)]


def _ground_truth(kit: Path, path: Path) -> list[str]:
    """The class of every validation image, from the development kit."""
    if not kit.is_file():
        raise InputError(f"{kit} is missing: it holds the classes of {path.name}; put it beside it.")
    try:
        with tarfile.open(kit) as tar:
            content = {
                Path(m.name).name: tar.extractfile(m).read()  # type: ignore[union-attr]
                for m in tar
                if m.isfile() and Path(m.name).name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
            }
        synsets = parse_mat(content["meta.mat"], f"{kit}:meta.mat")["synsets"]
        wnid = {int(np.ravel(row["ILSVRC2012_ID"])[0]): str(row["WNID"]) for row in synsets}
        return [wnid[int(line)] for line in content["ILSVRC2012_validation_ground_truth.txt"].split()]
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(f"cannot read {kit} as ImageNet's development kit ({reason(error)}): fetch it anew.") from None
    except (KeyError, ValueError) as error:
        raise InputError(f"{kit} is not ImageNet's development kit (it lacks {error}): fetch it anew.") from None


def _by_class(members: list[Member], truth: list[str], path: Path) -> dict[str, list[Member]]:
    if len(truth) != len(members):
        raise InputError(f"{path} has {len(members)} files and {DEVKIT} {len(truth)} labels: fetch both anew.")
    classes: dict[str, list[Member]] = {}
    for name, member in zip(truth, sorted(members)):
        classes.setdefault(name, []).append(member)
    return classes
