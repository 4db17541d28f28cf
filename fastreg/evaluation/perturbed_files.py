"""The published sequences: ImageNet-P's folders of videos and CIFAR-10-P's arrays.

ImageNet-P   <folder>/<perturbation>/<class>/<image>.mp4, H.264, 31 frames of 224 px (translate: 41)
CIFAR-10-P   <folder>/<perturbation>.npy, uint8 [10000, 31, 32, 32, 3] (motion_blur: 21 frames, translate: 16)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.distributed import World
from fastreg.errors import InputError, RunError
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData, digest, listed
from fastreg.evaluation.imagenet_c_folder import counted, names_of
from fastreg.evaluation.pixel_cache import to_device
from fastreg.evaluation.sequences import Clips, in_threads, sequence_condition
from fastreg.evaluation.types import SuitePlan
from fastreg.kernels.perturbations import NOISES, perturbation_frames
from fastreg.pipelines.npy import StoredRows, open_npy
from fastreg.pipelines.sequence_sets import SEQUENCE_SETS

_SAMPLED = 100  # sequences of an array in its fingerprint: all of it would be gigabytes


def reference(name: str) -> str:
    """The frame that a perturbation's frames are compared with."""
    return "first" if name in NOISES else "previous"


def _frames(batch: Clips) -> Tensor:
    return batch.frames


def imagenet_p(root: Path, eval_data: EvalData, names: Sequence[str]) -> SuitePlan:
    """Conditions over ``root/[group/]<perturbation>/<class>/*.mp4``.

    Missing perturbations are left out; videos that are not those of the data's images are named on the card. Raises
    InputError if there is no perturbation, or its first video cannot be read or has another size.
    """
    _require(root, "imagenet-p", "<perturbation>/<class>/<image>.mp4")
    found, known = {}, names_of(eval_data)
    for name in names:
        bases = [base for base in (root / name, *sorted(root.glob(f"*/{name}"))) if base.is_dir()]
        videos = _Videos(bases[0], eval_data, known) if bases else None
        if videos is None or not videos.files:
            continue
        first = _first(videos.files[0], eval_data.size)
        videos.count, published = len(first), perturbation_frames(name)
        frames = f"{len(first)} frames per sequence instead of {published}" if len(first) != published else ""
        differs = ", ".join(filter(None, (videos.differs, frames)))
        extra = {"fingerprint": videos.fingerprint} | ({"differs": differs} if differs else {})
        found[name] = sequence_condition(
            _frames, len(first), reference(name), batches=videos, n=len(videos.files), extra=extra
        )
    return _plan(root, found, names, f"{names[0]}/<class>/<image>.mp4", "H.264 videos")


def cifar_p(root: Path, eval_data: EvalData, names: Sequence[str]) -> SuitePlan:
    """Conditions over ``root/<perturbation>.npy``, uint8 [N, F, 32, 32, 3] in the order of the data.

    Raises InputError if there is none of the arrays, or one has another shape.
    """
    _require(root, "cifar-p", "<perturbation>.npy")
    found, side, n = {}, eval_data.size, len(eval_data)
    for name in names:
        path = root / f"{name}.npy"
        if not path.is_file():
            continue
        stored = open_npy(path)
        shape = [*stored.shape]
        if stored.dtype != np.uint8 or len(shape) != 5 or shape[0] != n or shape[2:] != [side, side, 3] or shape[1] < 2:
            raise InputError(
                f"{path} is {stored.dtype} {shape}, not uint8 [{n}, frames, {side}, {side}, 3], a sequence for each of "
                f"the data's images: extract it again, or give the data that it was made from."
            )
        rows = stored[:: max(1, n // _SAMPLED)]
        extra: dict[str, Any] = {
            "fingerprint": f"{shape}, of every {max(1, n // _SAMPLED)}: {digest(rows, rows[:, 0, 0, 0, 0])}"
        }
        if shape[1] != (published := perturbation_frames(name, "cifar32")):
            extra["differs"] = f"{shape[1]} frames per sequence instead of {published}"
        batches = _Arrays(stored, eval_data.labels)
        found[name] = sequence_condition(_frames, shape[1], reference(name), batches=batches, n=n, extra=extra)
    return _plan(root, found, names, f"{names[0]}.npy", "arrays, not compressed")


def _require(root: Path, suite: str, holds: str) -> None:
    if not root.is_dir():
        raise InputError(
            f"no folder at {root}: give the folder of {suite}'s files, which holds {holds}; "
            f"{SEQUENCE_SETS[suite].address} has them."
        )


def _plan(root: Path, found: dict[str, Any], names: Sequence[str], expected: str, kind: str) -> SuitePlan:
    if not found:
        raise InputError(
            f"{root} holds none of the perturbations asked for ({', '.join(names)}), with images of the data's "
            f"classes: expected {root}/{expected}."
        )
    return SuitePlan({"from": "official files", "folder": str(root), "fidelity": kind}, found)


class _Videos:
    """The videos of one perturbation, in the order of the data's classes; called, this rank's batches."""

    count = 0  # frames

    def __init__(self, base: Path, eval_data: EvalData, known: Any):
        folders = {
            folder.name: sorted(path for path in folder.iterdir() if path.suffix.lower() == ".mp4")
            for folder in sorted(base.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
        }
        if not eval_data.names and len(folders) != eval_data.classes:
            raise InputError(f"{base} has {len(folders)} classes, the data {eval_data.classes}: extract it again.")
        classes = eval_data.names or tuple(folders)
        rows = [folders.get(name, []) for name in classes]
        self.files = [path for row in rows for path in row]
        self.labels = np.repeat(np.arange(len(classes)), [len(row) for row in rows])
        self.size = eval_data.size
        self.fingerprint = listed((f"{path.parent.name}/{path.name}", path.stat().st_size) for path in self.files)
        stored = {f"{path.parent.name}/{path.stem}.JPEG" for path in self.files}
        wanted = known or stored
        differs = (
            counted(sorted(set(folders) - set(classes)), "folder that is no class", "folders that are none"),
            counted(sorted(wanted - stored), "sequence lost", "sequences lost"),
            counted(sorted(stored - wanted), "sequence that is not of the data", "sequences that are not of the data"),
        )
        self.differs = ", ".join(filter(None, differs))

    def __call__(self, world: World, config: EvalConfig) -> Iterator[Clips]:
        for indices, clips in in_threads(self._read, len(self.files), world, config):
            frames, labels = torch.from_numpy(np.stack(clips)), torch.from_numpy(self.labels[indices])
            yield Clips(to_device(frames, world.device), to_device(labels, world.device), torch.tensor(indices))

    def _read(self, index: int) -> np.ndarray:
        path = self.files[index]
        frames = read_video(path)
        wanted = (self.count, self.size, self.size, 3)
        if frames.shape != wanted:
            found = f"{len(frames)} frames of {frames.shape[2]} x {frames.shape[1]} px"
            raise RunError(f"{path} has {found}, not {self.count} of {self.size} x {self.size}: extract it again.")
        return frames


def _first(path: Path, size: int) -> np.ndarray:
    """The frames of the first video, which shows the number of frames. Raises InputError for another size."""
    try:
        frames = read_video(path)
    except RunError as error:
        raise InputError(str(error)) from error
    if frames.shape[1:3] != (size, size):
        raise InputError(
            f"{path} has frames of {frames.shape[2]} x {frames.shape[1]} px and the data has {size} px: give the "
            f"folder made for this size, or that `size`."
        )
    return frames


def read_video(path: Path) -> np.ndarray:
    """The frames of a video, uint8 RGB [F, H, W, 3], by OpenCV's FFmpeg, as the published test code reads them.

    Raises RunError for a file that is no video, or an OpenCV without FFmpeg.
    """
    import cv2

    if not hasattr(cv2, "VideoCapture"):
        raise RunError("this OpenCV reads no videos: `pip install opencv-python-headless`.")
    capture, frames = cv2.VideoCapture(str(path)), []
    try:
        while True:
            more, frame = capture.read()
            if not more:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    if len(frames) < 2:
        raise RunError(
            f"{path} cannot be read as a video ({len(frames)} frames): extract it again, or install an OpenCV with "
            f"FFmpeg: `pip install opencv-python-headless`."
        )
    return np.stack(frames)


class _Arrays:
    """This rank's every world-th block of a memory-mapped array of sequences."""

    def __init__(self, stored: np.ndarray | StoredRows, labels: np.ndarray):
        self.stored, self.labels = stored, labels

    def __call__(self, world: World, config: EvalConfig) -> Iterator[Clips]:
        step = max(1, config.batch_size)
        for start in range(world.rank * step, len(self.stored), world.size * step):
            rows = slice(start, start + step)
            frames = torch.from_numpy(np.array(self.stored[rows], order="C"))
            labels = torch.from_numpy(np.asarray(self.labels[rows]))
            keys = torch.arange(start, start + len(labels))
            yield Clips(to_device(frames, world.device), to_device(labels, world.device), keys)
