"""Out-of-distribution sets of natural size: OpenOOD 1.5's near and far groups, and where their images are found.

A set is a folder of images under the name that its archive unpacks to, or as in OpenOOD's own tree
(``images_largescale/``, ``images_classic/``). With OpenOOD's ``benchmark_imglist/`` beside it, exactly the images of
its list are taken. The images are resized and cropped as the data's own validation images.

Source: Zhang et al., OpenOOD v1.5: enhanced benchmark for out-of-distribution detection (DMLR 2024); its
``evaluation_api/datasets.py`` has the groups and the lists. SUN, Places, iNaturalist: Huang and Li, MOS: towards
scaling out-of-distribution detection for large semantic space (CVPR 2021).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastreg.errors import InputError
from fastreg.evaluation.eval_data import EvalData, listed
from fastreg.evaluation.imagenet_classes import imagenet_classes
from fastreg.pipelines import open_dataset
from fastreg.pipelines.address import is_address
from fastreg.pipelines.file_list import EXTENSIONS
from fastreg.pipelines.source import Dataset, Source

COMMON = "ood"  # folder of the user's own sets in $FASTREG_DATA
LISTS = "benchmark_imglist"
TREES = ("images_largescale", "images_classic")
OPENOOD = "OpenOOD's download script (github.com/Jingkang50/OpenOOD, scripts/download)"
MOS = "pages.cs.wisc.edu/~huangrui/imagenet_ood_dataset/"
DTD = "www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz"


class NaturalSet(NamedTuple):
    """A set by OpenOOD's name.

    Args:
        name: OpenOOD's name.
        group: "near", "far", or "" for a set of no group.
        images: number of images in OpenOOD's list, or in the published archive.
        folders: folders with its images, the most particular first.
        address: of its page or archive.
        list_name: its list under ``benchmark_imglist/<data set>/``.
        dataset: a data set of fastreg whose validation split has the same images.
    """

    name: str
    group: str
    images: int
    folders: tuple[str, ...]
    address: str
    list_name: str = ""
    dataset: str = ""


def _cifar(other: str, tin: int, places: int) -> tuple[NaturalSet, ...]:
    return (
        NaturalSet(
            other, "near", 9_000, (f"{other}/test",), f"`fastreg data fetch {other}`", f"test_{other}.txt", other
        ),
        NaturalSet("tin", "near", tin, ("tin/test", "tin"), OPENOOD, "test_tin.txt"),
        NaturalSet("mnist", "far", 70_000, ("mnist",), OPENOOD, "test_mnist.txt"),
        NaturalSet("svhn", "far", 26_032, ("svhn/test",), "`fastreg data fetch svhn`", "test_svhn.txt", "svhn"),
        NaturalSet(
            "texture", "far", 5_640, ("texture", "Textures", "dtd/images", "dtd"), f"{DTD} (625 MB)", "test_texture.txt"
        ),
        NaturalSet("places365", "far", places, ("places365",), OPENOOD, "test_places365.txt"),
    )


BENCHMARKS: dict[str, tuple[NaturalSet, ...]] = {
    "imagenet": (
        NaturalSet("ssb_hard", "near", 49_000, ("ssb_hard", "SSB-hard", "SSB_hard"), OPENOOD, "test_ssb_hard.txt"),
        NaturalSet(
            "ninco",
            "near",
            5_879,
            ("NINCO/NINCO_OOD_classes", "NINCO_OOD_classes", "ninco", "NINCO"),
            "zenodo.org/record/8013288 (NINCO_all.tar.gz)",
            "test_ninco.txt",
        ),
        NaturalSet(
            "inaturalist",
            "far",
            10_000,
            ("inaturalist", "iNaturalist"),
            f"{MOS}iNaturalist.tar.gz",
            "test_inaturalist.txt",
        ),
        NaturalSet(
            "textures",
            "far",
            5_160,
            ("textures", "Textures", "texture", "dtd/images", "dtd"),
            f"{DTD} (625 MB; all 5,640 images, of which OpenOOD's list has 5,160)",
            "test_textures.txt",
        ),
        NaturalSet(
            "openimage_o",
            "far",
            15_869,
            ("openimage_o", "OpenImage-O", "openimage-o", "openimage_o/images"),
            f"{OPENOOD}; with its list, as 1,763 images are for validation",
            "test_openimage_o.txt",
        ),
        NaturalSet("sun", "", 10_000, ("SUN", "sun"), f"{MOS}SUN.tar.gz"),
        NaturalSet("places", "", 10_000, ("Places", "places"), f"{MOS}Places.tar.gz"),
    ),
    "cifar10": _cifar("cifar100", 7_793, 35_195),
    "cifar100": _cifar("cifar10", 6_526, 33_773),
}
FOLDERS = {folder.split("/")[0] for sets in BENCHMARKS.values() for one in sets for folder in one.folders}


class Found(NamedTuple):
    """A set on disk. ``of``: its row; None for a folder of the user's own."""

    name: str
    source: Source
    of: NaturalSet | None = None
    by_list: bool = False


class ImageFiles(Source):
    """Image files without labels, in the given order.

    Args:
        name: name of the set.
        root: folder that holds all files.
        files: their paths.
        like: the evaluated data, for the statistics.
    """

    def __init__(self, name: str, root: Path, files: Sequence[Path], like: EvalData):
        self.paths = list(files)
        try:
            counts = listed((os.path.relpath(path, root), path.stat().st_size) for path in self.paths)
        except OSError as error:
            raise InputError(f"cannot read {error.filename} ({error.strerror}): unpack that set again.") from error
        spec = Dataset("folder", like.mean, like.std)
        super().__init__(name, "ood", root, spec, np.zeros(len(self.paths), np.int64), ("-",), counts)

    def read(self, index: int) -> bytes:
        return self.paths[index].read_bytes()

    def describe(self, index: int) -> str:
        return str(self.paths[index])

    def key(self, index: int) -> str:
        return os.path.relpath(self.paths[index], self.root)


def benchmark_of(data: EvalData) -> str:
    """The key of ``BENCHMARKS`` for a set: its name, ImageNet for folders of its classes, otherwise empty."""
    if data.name in BENCHMARKS:
        return data.name
    return "imagenet" if data.names and set(data.names) <= set(imagenet_classes()) else ""


def search_roots(data: EvalData, ood_dir: str | Path | None) -> list[Path]:
    """The folders that are searched: ``ood_dir`` alone, otherwise the usual ones and those around the data."""
    if ood_dir is not None:
        if not Path(ood_dir).is_dir():
            raise InputError(f"`ood_dir` {ood_dir} is not a folder: give one that holds out-of-distribution sets.")
        return [Path(ood_dir)]
    common = Path(os.environ.get("FASTREG_DATA", "data"))
    found = [common / COMMON, common]
    if data.source is not None and not is_address(data.source.root):
        root = Path(data.source.root).absolute()
        found += [root, root.parent] if root.is_dir() else [root.parent]
    unique = {folder.resolve(): folder for folder in reversed(found) if folder.is_dir()}
    return [folder for folder in found if unique.get(folder.resolve()) is folder]


def find_sets(data: EvalData, ood_dir: str | Path | None, leave_out: Iterable[Path] = ()) -> list[Found]:
    """The sets of the data's benchmark that are on disk, then the user's own folders of images.

    Args:
        data: the evaluated data.
        ood_dir: folder of sets; None: the usual folders.
        leave_out: images of the validation set, which no set contains.

    Raises:
        InputError: ``ood_dir`` has no images, or files of a list are missing.
    """
    roots, without = search_roots(data, ood_dir), {path.resolve() for path in leave_out}
    rows = BENCHMARKS.get(benchmark_of(data), ())
    found = [one for row in rows if (one := _find(row, benchmark_of(data), roots, data, without)) is not None]
    own = roots[0] if ood_dir is not None else next((root for root in roots if root.name == COMMON), None)
    return found + (_own(own, data, without, bool(found)) if own is not None else [])


def _find(row: NaturalSet, benchmark: str, roots: Sequence[Path], data: EvalData, without: set[Path]) -> Found | None:
    for root in roots:
        path = root / LISTS / benchmark / row.list_name
        if row.list_name and path.is_file() and (files := read_list(path)):
            return Found(row.name, ImageFiles(row.name, root, _kept(files, without), data), row, True)
        for folder in (base / name for name in row.folders for base in (root, *(root / tree for tree in TREES))):
            if files := _kept(image_files(folder), without):
                return Found(row.name, ImageFiles(row.name, folder, files, data), row)
    for root in roots if row.dataset else ():
        for name in (row.dataset, {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}.get(row.dataset)):
            if name and (root / name).is_dir():
                try:
                    return Found(row.name, open_dataset(row.dataset, "val", root / name), row)
                except InputError:
                    continue
    return None


def _own(root: Path, data: EvalData, without: set[Path], found: bool) -> list[Found]:
    """Folders under ``root`` that are no published set; a ``root`` that holds images alone is one set itself."""
    published = BENCHMARKS.get(benchmark_of(data), ())
    taken = {folder.split("/")[0] for one in published for folder in one.folders} | {LISTS, *TREES}
    sets = []
    for folder in sorted(root.iterdir()):
        files = _kept(image_files(folder), without) if folder.name not in taken else []
        if files:
            sets.append(Found(folder.name, ImageFiles(folder.name, folder, files, data)))
    if not sets and not found and (files := _kept(image_files(root), without)):
        return [Found(root.absolute().name, ImageFiles(root.absolute().name, root, files, data))]
    return sets


def read_list(path: Path) -> list[Path]:
    """The files of an OpenOOD list; empty if none of them is on disk.

    Raises InputError if only some of them are.
    """
    try:
        names = [line.split(" ", 1)[0] for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list {path} ({error}): fetch it again.") from error
    root = path.parent.parent.parent
    bases = [*(root / tree for tree in TREES), root, path.parent]
    base = next((base for base in bases for name in names[:1] if (base / name).is_file()), None)
    if base is None:
        return []
    files = [base / name for name in names]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{path} lists {len(files):,} images, and {len(missing):,} of them are missing (such as {missing[0]}): "
            f"unpack that set again, or move the list away."
        )
    return files


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and below it, sorted; hidden files and folders are ignored."""
    if not folder.is_dir() or folder.name.startswith("."):
        return []
    found = (f for f in folder.rglob("*") if f.suffix.lower() in EXTENSIONS and not f.name.startswith("."))
    return sorted(found)


def _kept(files: Sequence[Path], without: set[Path]) -> list[Path]:
    return [file for file in files if file.resolve() not in without] if without else list(files)


def describe_sets() -> str:
    """The published sets by data set: group, number of images, folders and address, as text."""
    lines = []
    for benchmark, sets in BENCHMARKS.items():
        lines.append(f"out-of-distribution sets of {benchmark}:")
        for one in sets:
            group = f"{one.group} group of OpenOOD 1.5" if one.group else "no group"
            lines.append(f"  {one.name}: {one.images:,} images, {group}")
            lines.append(f"    folder: {' or '.join(one.folders)}")
            lines.append(f"    from {one.address}")
    lines.append(
        f"Folders are looked for in --ood-dir, else in $FASTREG_DATA/ood, $FASTREG_DATA (or data), and in and beside "
        f"the data's own folder, also under {' and '.join(TREES)}. OpenOOD's {LISTS} there selects the images."
    )
    return "\n".join(lines)
