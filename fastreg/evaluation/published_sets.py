"""The published corrupted sets as files: ImageNet-C's folders and CIFAR-C's arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.evaluation import conditions
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.corrupted_manifest import MANIFEST, check_complete, read_manifest
from fastreg.evaluation.eval_data import EvalData, digest
from fastreg.evaluation.imagenet_c_folder import WrongSize, names_of, open_imagenet_c_folder
from fastreg.evaluation.pixel_cache import Pixels, to_device
from fastreg.evaluation.types import Condition, SuitePlan
from fastreg.metrics.corruption import CATEGORIES
from fastreg.pipelines.image import ERRORS
from fastreg.pipelines.npy import StoredRows, open_npy

OFFICIAL_SIDE = 224  # of ImageNet-C's files, in pixels


def imagenet_c(root: Path, eval_data: EvalData, pairs: Sequence[tuple[str, int]], resize: bool = False) -> SuitePlan:
    """Conditions over ``root/[category/]<corruption>/<severity>/<class>/*.JPEG``, decoded as they are (no resize).

    With ``resize``, files of another size than the data's are resized as wholes, so that a model of another size sees
    what one of the files' size sees.

    Missing conditions are left out. In a condition that lacks classes or images, the stored images are measured. In
    both cases the scorecard names the condition and has no total. Raises InputError if there is no condition, or if
    images have another size.
    """
    if not root.is_dir():
        raise InputError(
            f"no ImageNet-C folder at {root}: give the folder that holds <corruption>/<severity>/<class>/."
        )
    _check_complete(root, (f"{name}/{severity}" for name, severity in pairs))
    found, names = {}, names_of(eval_data)
    side = _side(root) if resize else eval_data.size
    for name, severity in pairs:
        folders = [root / name, *(root / category / name for category in CATEGORIES), root / "extra" / name]
        there = [folder / str(severity) for folder in folders if (folder / str(severity)).is_dir()]
        stored = open_imagenet_c_folder(there[0], eval_data, names, side) if there else None
        if stored is None:
            continue
        try:
            stored.read(0)  # a folder of another size is found now, a single image when it is decoded
        except WrongSize as error:
            raise InputError(
                f"{stored.describe(0)}: {error}; give the folder made for this size, or that `size`, or "
                f"`resize_official` to resize the files."
            ) from error
        except ERRORS:
            pass  # a broken file is named when it is decoded
        extra = {"fingerprint": stored.fingerprint} | ({"differs": stored.differs} if stored.differs else {})
        batches = FolderBatches(stored, eval_data.size)
        found[f"{name}/{severity}"] = Condition(conditions.clean, batches, len(stored), extra)
    if not found:
        raise InputError(
            f"{root} holds none of the corruptions asked for, with images of the data's classes: "
            f"expected {root}/{pairs[0][0]}/1/<class>/."
        )
    resized = {"resized_from": side} if side != eval_data.size else {}
    return SuitePlan({**_origin(root), **resized, "folder": str(root), "fidelity": "dataset", "jpeg": 85}, found)


def _side(root: Path) -> int:
    """The side of the stored images: that of `fastreg corrupt`'s manifest, otherwise the published one."""
    made = _manifest(root) or {}
    return made.get("data", {}).get("size", OFFICIAL_SIDE)


class FolderBatches:
    """Batches of a Source, decoded anew in every pass.

    Args:
        source: encoded images.
        size: side of the decoded images in pixels.
        resize: length of the shorter side after the resize, over ``size``; the rest is cut off around the center.
        loader: name of the loader; None: the evaluation's.
    """

    def __init__(self, source: Any, size: int, resize: float = 1.0, loader: str | None = None):
        self.source, self.size, self.resize, self.loader = source, size, resize, loader

    def __call__(self, world: World, config: EvalConfig) -> Iterator[Pixels]:
        from fastreg.pipelines import make_loader

        loader = make_loader(
            self.source,
            train=False,
            batch_size=config.batch_size,
            size=self.size,
            resize=self.resize,
            interpolation=config.interpolation,
            rank=world.rank,
            world=world.size,
            device=world.device,
            loader=self.loader or config.loader,
            workers=config.workers,
        )
        try:
            for batch in loader.batches():
                yield Pixels(batch.images, batch.labels, batch.indices)
        finally:
            loader.close()


def cifar_c(root: Path, eval_data: EvalData, pairs: Sequence[tuple[str, int]]) -> SuitePlan:
    """Conditions over ``root/<corruption>.npy``, uint8 [5 n, 32, 32, 3] severity-major, and ``root/labels.npy``.

    Raises InputError if the folder, the labels or all arrays are missing, an array has another shape, or the labels
    differ from those of the data.
    """
    if not (root / "labels.npy").is_file():
        raise InputError(f"no CIFAR-C at {root}: give the folder that holds labels.npy and <corruption>.npy.")
    _check_complete(root, (name for name, _ in pairs))
    labels = open_npy(root / "labels.npy")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{root}/labels.npy is {labels.dtype} {list(labels.shape)}, not integers [n]: extract it again."
        )
    labels = labels[:].astype(np.int64)
    if not len(labels) or labels.min() < 0 or labels.max() >= eval_data.classes:
        has = f"labels from {labels.min()} to {labels.max()}" if len(labels) else "no labels"
        raise InputError(f"{root}/labels.npy has {has}, but the classes are 0 to {eval_data.classes - 1}.")
    found = {}
    chosen = {severity for _, severity in pairs}
    for name, severity in pairs:
        path = root / f"{name}.npy"
        if not path.is_file():
            continue
        stacked = open_npy(path)
        single = len(stacked) == len(eval_data)  # one severity of the data's images, not five of a fifth as many
        if single and len(chosen) > 1:
            raise InputError(
                f"{path} has {len(stacked):,} images, as many as the data: it has one severity instead of five; give "
                f"that one as `severities`."
            )
        n = len(stacked) if single else len(stacked) // 5
        side = eval_data.size
        if stacked.dtype != np.uint8 or stacked.shape != (n if single else 5 * n, side, side, 3):
            raise InputError(
                f"{path} is {stacked.dtype} {list(stacked.shape)}, not uint8 [5 n, {side}, {side}, 3]: extract it "
                f"again."
            )
        if len(labels) not in (n, 5 * n):
            raise InputError(f"{root}/labels.npy has {len(labels)} labels for {n} images x 5: extract it again.")
        rows = slice((severity - 1) * n, severity * n)
        own = labels[rows] if len(labels) == 5 * n else labels
        rows = slice(0, n) if single else rows
        if n == len(eval_data) and (other := np.flatnonzero(own != eval_data.labels)).size:
            at = int(other[0])
            raise InputError(
                f"{root}/labels.npy has class {own[at]} for image {at} of severity {severity} and the data has "
                f"{eval_data.labels[at]}: these arrays were made from another set, or in another order."
            )
        extra = {"fingerprint": digest(stacked[rows], own)}
        found[f"{name}/{severity}"] = Condition(conditions.clean, _ArrayBatches(stacked, rows.start, own), n, extra)
    if not found:
        raise InputError(f"{root} holds none of the corruptions asked for: expected {pairs[0][0]}.npy.")
    return SuitePlan({**_origin(root), "folder": str(root), "fidelity": "dataset", "jpeg": None}, found)


def _origin(root: Path) -> dict[str, Any]:
    """The origin of the files, for the settings: published, or made by `fastreg corrupt` with its settings."""
    made = _manifest(root)
    if made is None:
        return {"from": "official files"}
    known: dict[str, Any] = {key: made[key] for key in ("constants", "seed", "fastreg", "frost_scale") if key in made}
    return {"from": "files of fastreg corrupt", **known}


def _check_complete(root: Path, keys: Iterable[str]) -> None:
    """Raise InputError for a set of `fastreg corrupt` that has not finished the conditions ``keys``."""
    if (made := read_manifest(root)) is not None:
        check_complete(root, made, keys)


def _manifest(root: Path) -> dict[str, Any] | None:
    """The settings with which `fastreg corrupt` wrote the files; None for other files."""
    found = read_manifest(root)
    if found is None:
        return None
    made = found["settings"]
    try:
        return made | {key: made[key] for key in ("constants", "seed", "fastreg")}
    except (KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
        message = f"{root / MANIFEST} does not describe how {root} was made ({why}): restore it, or move it away."
        raise InputError(message) from error


class _ArrayBatches:
    """This rank's every world-th block of the rows of an array that belong to ``labels``."""

    def __init__(self, images: np.ndarray | StoredRows, first: int, labels: np.ndarray):
        self.images, self.first, self.labels = images, first, labels

    def __call__(self, world: World, config: EvalConfig) -> Iterator[Pixels]:
        step = config.batch_size
        for start in range(world.rank * step, len(self.labels), world.size * step):
            rows = slice(start, min(start + step, len(self.labels)))
            stored = self.images[self.first + rows.start : self.first + rows.stop]
            images = torch.from_numpy(np.ascontiguousarray(stored))
            labels = torch.from_numpy(self.labels[rows])
            keys = torch.arange(start, start + len(labels))
            yield Pixels(to_device(images, world.device), to_device(labels, world.device), keys)
