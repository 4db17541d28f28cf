"""The images and labels of an evaluation: a Source, a folder of class folders, or arrays, behind one interface."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.evaluation import pixel_cache
from fastreg.evaluation.config import CROP_PCT, INTERPOLATION, PROTOCOL, check_size
from fastreg.evaluation.pixel_cache import PixelCache
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD


class EvalData:
    """The evaluated set. ``names``: the class names, empty for arrays. ``classes``: the number of classes.

    Args:
        data: a Source, the path of a folder, or ``(images, labels)``: uint8 [N, S, S, 3] and int64 [N].
        size: side of the evaluated images in pixels; default: as stored, else 224.
        crop_pct: ``size`` over the shorter side after the resize that precedes the center crop; 1 leaves squares of
            that size unchanged (Tiny ImageNet at 64 px).
        interpolation: of that resize.

    Raises:
        InputError: data without images, arrays of the wrong shape or type, a size that the data cannot have.
    """

    def __init__(
        self,
        data: Any,
        size: int | None = None,
        crop_pct: float = CROP_PCT,
        interpolation: str = INTERPOLATION,
    ):
        check_size(size, crop_pct)
        self.crop_pct, self.interpolation = crop_pct, interpolation
        self.arrays: tuple[Tensor, Tensor] | None = None
        self.source: Any = None
        if isinstance(data, tuple | list) and len(data) == 2:
            self.arrays = _checked(*data)
            self.size, self.names = int(self.arrays[0].shape[1]), ()
            self.classes = int(self.arrays[1].max()) + 1
            self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
            if size not in (None, self.size):
                raise InputError(f"`size` is {size}, but the images are {self.size} px: arrays are not resized.")
            return
        self.source = open_folder(data) if isinstance(data, str | Path) else data
        if not hasattr(self.source, "fingerprint"):
            raise InputError(
                f"the data must be a Source, the path of a folder, or (images, labels), but is {type(data).__name__}."
            )
        if not len(self.source):
            raise InputError(f"{self.source.name} {self.source.split} at {self.source.root} holds no images.")
        stored = self.source.canvas if self.source.layout != "folder" else None  # CIFAR's, which is taken as it is
        if stored and size not in (None, stored[0]):
            raise InputError(f"`size` is {size}, but {self.source.name} images are {stored[0]} px and are not resized.")
        self.size = stored[0] if stored else size or 224
        self.names, self.classes = tuple(self.source.classes), len(self.source.classes)
        self.mean, self.std = self.source.mean, self.source.std

    def __len__(self) -> int:
        return len(self.source if self.source is not None else self.arrays[1])  # type: ignore[index]

    @property
    def name(self) -> str:
        """The data set's name; "arrays" and "folder" are no data set."""
        return self.source.name if self.source is not None else "arrays"

    @property
    def labels(self) -> np.ndarray:
        """int64 [N]"""
        return self.arrays[1].cpu().numpy() if self.arrays is not None else self.source.labels

    def describe(self) -> dict[str, Any]:
        """The card's description of the data."""
        source = self.source
        return {
            "name": self.name,
            "split": source.split if source is not None else "-",
            "n": len(self),
            "classes": self.classes,
            "fingerprint": digest(*(array.cpu() for array in self.arrays)) if self.arrays else source.fingerprint,
            "size": self.size,
            "crop_pct": self.crop_pct,
            **({"interpolation": self.interpolation} if self.interpolation != INTERPOLATION else {}),
            "sample": bool(source is not None and source.is_sample),
        }

    def decode(
        self, world: World, *, batch_size: int, loader: str = PROTOCOL, workers: int | None = None
    ) -> PixelCache:
        """This rank's share of the pixels."""
        if self.arrays is not None:
            return pixel_cache.from_arrays(*self.arrays, world)
        loading = {"resize": 1 / self.crop_pct, "interpolation": self.interpolation}
        loading |= {"loader": loader, "workers": workers}
        return pixel_cache.decode(self.source, world, size=self.size, batch_size=batch_size, **loading)

    def fit(self, outputs: int, chosen: bool = False) -> None:
        """Raise InputError if a model's outputs do not fit the data. Arrays have as many classes as the model.

        Args:
            outputs: number of logits of an image.
            chosen: whether :meth:`columns` ordered them by the data's classes.
        """
        if self.names and outputs != self.classes and not chosen:
            raise InputError(
                f"the model has {outputs} classes but the data has {self.classes}: "
                f"evaluate it on the set it was trained for, or give a checkpoint of this one."
            )
        if outputs < self.classes:
            raise InputError(f"the model has {outputs} classes but the labels go up to {self.classes - 1}.")
        if not self.names:
            self.classes = outputs

    @property
    def numbered(self) -> bool:
        """Whether the data is a folder whose classes are named 0, 1, 2 and so on."""
        return self.source is not None and self.source.name == "folder" and all(map(str.isdecimal, self.names))

    def columns(self, outputs: Sequence[str] | None) -> Tensor | None:
        """The indices of the model's outputs for this data's classes, in the data's order; None if they are the same.

        ``outputs``: the names of the model's classes. ImageNet-A and -R have 200 of the 1000, for example. In folders
        named by numbers, such as ImageNetV2's, a name is the index of an output ("10" sorts before "2"). Raises
        InputError if the data has classes that the model does not have.
        """
        if not self.names or tuple(outputs or ()) == self.names:
            return None
        if self.numbered and not set(self.names) <= set(outputs or ()):
            return torch.tensor([int(name) for name in self.names])
        if not outputs:
            return None
        position = {name: index for index, name in enumerate(outputs)}
        for name in self.names:
            if name in position and (first := list(outputs).index(name)) != position[name]:
                raise InputError(
                    f"`classes` has {name!r} twice, for outputs {first} and {position[name]}: give unique names, "
                    f"such as WordNet's n02012849."
                )
        strange = [name for name in self.names if name not in position]
        if strange:
            raise InputError(
                f"the model has {len(outputs)} classes and the data {self.classes}, and {len(strange)} of the data's "
                f"(such as {strange[0]!r}) are not the model's: evaluate it on the set it was trained for."
            )
        return torch.tensor([position[name] for name in self.names])


def open_folder(path: str | Path) -> Any:
    """A folder of class folders, or of a val/ folder that holds them, as a Source named "folder"."""
    from fastreg.pipelines.datasets import DATASETS
    from fastreg.pipelines.source import FolderSource

    name = str(path).removeprefix("folder:")
    root = Path(name)
    if not name or not root.is_dir():
        raise InputError(f"no folder at {name or 'folder:'}: give a folder that holds one folder of images per class.")
    if (root / "val").is_dir():
        return FolderSource(root, "folder", "val", DATASETS["folder"])
    root = root.absolute()
    return FolderSource(root.parent, "folder", root.name, DATASETS["folder"])


def _checked(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    try:
        images, labels = (
            torch.as_tensor(np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array).contiguous()
            for array in (images, labels)
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"images and labels must be arrays of numbers ({error}).") from error
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise InputError(f"labels must be integers, but are {str(labels.dtype)[6:]}.")
    labels = labels.long()
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise InputError(
            f"images must be square uint8 [N, S, S, 3], but are {str(images.dtype)[6:]} {list(images.shape)}."
        )
    if labels.shape != images.shape[:1]:
        raise InputError(f"{len(images)} images but labels of shape {list(labels.shape)}: give one label per image.")
    if not len(images):
        raise InputError("there are no images to evaluate on: give one or more.")
    if labels.min() < 0:
        raise InputError(f"labels count from 0, but the smallest is {int(labels.min())}.")
    return images, labels


def listed(files: Iterable[tuple[str, int]]) -> str:
    """The fingerprint of files from their (name, bytes), in order."""
    rows = list(files)
    seen = hashlib.sha256("".join(f"{name}\0{size}\0" for name, size in rows).encode())
    return f"{len(rows)} images, {sum(size for _, size in rows)} bytes, names and sizes {seen.hexdigest()[:12]}"


def digest(images: np.ndarray | Tensor, labels: np.ndarray | Tensor) -> str:
    """The fingerprint of arrays: their number, and a digest of every pixel and label."""
    seen = hashlib.sha256(np.ascontiguousarray(images).data)
    seen.update(np.ascontiguousarray(labels).data)
    return f"{len(labels)} images, sha256 {seen.hexdigest()[:12]}"
