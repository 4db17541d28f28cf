"""Out-of-distribution detection by the largest softmax probability (the paper's last column).

Seven sets, as ODIN (Liang et al. 2018) built them: Tiny ImageNet and LSUN, cropped and resized, iSUN, and two kinds of
noise. Noise is drawn, as many images as the data has and at most 10 000 (Gaussian: N(0.5, 1) clipped to [0, 1];
uniform on [0, 1]). The five image sets are read from ``<ood folder>/<set>/**``; a missing set has no substitute.
Further folders there are the user's own sets, which are not in the mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.distributed import World
from fastreg.errors import InputError, RunError
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData, listed
from fastreg.evaluation.ood_sets import FOLDERS, LISTS, TREES, image_files
from fastreg.evaluation.pixel_cache import FloatPixels, to_device
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, SuitePlan, Table
from fastreg.kernels import philox
from fastreg.metrics import auroc, detection_error, fpr95
from fastreg.pipelines.image import ERRORS, header, pixels, reason

# image set -> names of its folder: fastreg's, then that of ODIN's archive
IMAGE_SETS = {
    "tiny_imagenet_crop": ("tiny_imagenet_crop", "Imagenet"),
    "tiny_imagenet_resize": ("tiny_imagenet_resize", "Imagenet_resize"),
    "lsun_crop": ("lsun_crop", "LSUN"),
    "lsun_resize": ("lsun_resize", "LSUN_resize"),
    "isun": ("isun", "iSUN"),
}
NOISES = ("gaussian", "uniform")
OOD_SETS = (*IMAGE_SETS, *NOISES)
OOD_IMAGES = {name: 8_925 if name == "isun" else 10_000 for name in OOD_SETS}
NOISE_IMAGES = 10_000
_TUNING = 1000  # ODIN's drivers keep the first thousand of each set for tuning


def build(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """One condition per set found.

    Raises InputError if a folder was given and has no images, a set's name is taken, its images have another size than
    the model's, or a set has no images beyond ODIN's tuning images.
    """
    root = _root(config)
    first = _TUNING if config.odin_split else 0
    found = _conditions(_sets(root, config.ood_dir is not None, eval_data.size), eval_data, config, first)
    compare = partial(detection, first=first)
    found = {name: condition._replace(compare=compare) for name, condition in found.items()}
    return SuitePlan({"score": "largest softmax probability", "folder": str(root), "first": first}, found)


def paper_conditions(eval_data: EvalData, config: EvalConfig) -> dict[str, Condition]:
    """Conditions of the paper's sets, complete, as far as they are there and made for the data's size."""
    sets = {name: files for name, files in _published(_root(config)).items() if _fits(files[0], eval_data.size)}
    return _conditions(sets, eval_data, config, 0)


def _root(config: EvalConfig) -> Path:
    return Path(config.ood_dir or Path(os.environ.get("FASTREG_DATA", "data")) / "ood")


def _conditions(
    sets: Mapping[str, list[Path]], eval_data: EvalData, config: EvalConfig, first: int
) -> dict[str, Condition]:
    """Conditions of image files and of the noises, without the first ones of the paper's sets."""
    found = {}
    for name, files in sets.items():
        tuned = first if name in IMAGE_SETS else 0  # the user's own sets have no images for tuning
        _enough(len(files), tuned, files[0].parent)
        side = _side(files[0], eval_data.size)
        extra = {"stored_px": side, "fingerprint": listed((f.name, f.stat().st_size) for f in files)}
        batches = _image_batches(files[tuned:], side, eval_data.size)
        found[name] = Condition(on_pixels, batches, len(files) - tuned, extra)
    last = min(NOISE_IMAGES, len(eval_data))
    _enough(last, first, "the data")
    for name in NOISES:
        drawn = _noise(name, range(first, last), eval_data.size, config.seed)
        found[name] = Condition(on_pixels, drawn, last - first)
    return found


def detection(inside: Tensor, outside: Tensor, row: dict[str, Any], *, first: int) -> dict[str, Any]:
    """The row of one set.

    Args:
        inside: confidences of the data's own images, float32 [N]. NaN (no softmax) scores 0, the least familiar.
        outside: confidences of the set's images, float32 [M].
        row: the row of a condition over the set.
        first: number of images that ODIN keeps for tuning; above 0, as many images of the data are used as of the set.

    Returns:
        The row; the figures are None if all images of the data, or all of the set, have no softmax.
    """
    inside = inside[first : first + len(outside) if first else None]
    lost = {"nonfinite": int(outside.isnan().sum()), "nonfinite_in": int(inside.isnan().sum())}
    has_scores = lost["nonfinite"] < len(outside) and lost["nonfinite_in"] < len(inside)
    inside, outside = inside.nan_to_num(0.0), outside.nan_to_num(0.0)
    figures = {"detection_error": detection_error, "auroc": auroc, "fpr95": fpr95}
    return {
        "n": row["n"],
        "n_in": len(inside),
        **lost,
        **{name: figure(inside, outside) if has_scores else None for name, figure in figures.items()},
        "confidence": row["confidence"],
        "histogram_in": torch.histc(inside, 40, 0, 1).long().tolist(),
        "histogram_out": torch.histc(outside, 40, 0, 1).long().tolist(),
    }


def paper_sets(card: ScorecardData, suite: str = "ood") -> dict[str, dict[str, Any]]:
    """The rows of the paper's sets that were measured."""
    rows = card.results(suite)
    return {n: rows[n] for n in OOD_SETS if rows.get(n, {}).get("detection_error") is not None}


def mean_error(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """``ood_error``, the mean of the seven sets, or ``ood_mean``, the mean of the measured sets if some are missing."""
    sets = paper_sets(card, suite)
    key = "ood_error" if len(sets) == len(OOD_SETS) else "ood_mean"
    return {key: sum(row["detection_error"] for row in sets.values()) / len(sets)} if sets else {}


def altered(card: ScorecardData, suite: str) -> list[str]:
    first = card.suite_settings(suite).get("first", 0)
    found = {name: row["n"] + first for name, row in paper_sets(card, suite).items()}
    other = [f"{name} {n:,} of {OOD_IMAGES[name]:,}" for name, n in found.items() if n != OOD_IMAGES[name]]
    return [f"images: {', '.join(other)}"] if other else []


def notes(card: ScorecardData, suite: str) -> list[str]:
    """Missing sets, and sets whose images lost a border."""
    sets, messages = paper_sets(card, suite), []
    missing = [name for name in OOD_SETS if name not in sets]
    if sets and missing:
        messages.append(
            f"ood: the mean is of {len(sets)} of the paper's {len(OOD_SETS)} sets; missing: {', '.join(missing)}."
        )
    for name, row in card.results(suite).items():
        if row.get("stored_px", 0) > card.data["size"]:
            used = f"the center {card.data['size']} px were used; ODIN's own code takes the whole images"
            messages.append(f"ood {name}: of its images of {row['stored_px']} px {used}.")
    return messages


def tables(card: ScorecardData, suite: str) -> list[Table]:
    """The figures of every set."""
    keys = {"detection error": "detection_error", "AUROC": "auroc", "FPR at 95 % TPR": "fpr95"}
    rows = [[name, f"{row['n']:,}", *map(row.get, keys.values())] for name, row in card.results(suite).items()]
    return [Table("ood: telling each set from the data, in percent", ["set", "images", *keys], rows)] if rows else []


def _published(root: Path) -> dict[str, list[Path]]:
    """The image files of the paper's sets under ``root``."""
    sets: dict[str, list[Path]] = {}
    for name, places in IMAGE_SETS.items():
        for place in places:
            files = image_files(root / place)
            if files and name in sets:
                raise InputError(f"{root} holds {name} twice, as {' and '.join(places)}: keep one.")
            if files:
                sets[name] = files
    return sets


def _sets(root: Path, named: bool, size: int) -> dict[str, list[Path]]:
    """The image files of each set under ``root``: the paper's, then any further folder as a set of its own.

    A ``named`` root without any of the paper's sets is one set itself, with all its subfolders. Published sets of
    natural size are those of the suite ``ood-features``.
    """
    sets = _published(root)
    known = {place for places in IMAGE_SETS.values() for place in places} | {LISTS, *TREES}
    folders = sorted(root.iterdir()) if root.is_dir() else []
    natural = [f for f in folders if f.name in FOLDERS and (files := image_files(f)) and not _fits(files[0], size)]
    whole = named and not sets and not natural and not any(f.name in (LISTS, *TREES) for f in folders)
    for folder in [root] if whole else folders:
        skipped = folder != root and (folder.name in known or folder in natural)
        files = image_files(folder) if not skipped else []
        name = folder.absolute().name
        if files and name in OOD_SETS:
            raise InputError(f"{folder} has the name of one of the paper's sets ({', '.join(OOD_SETS)}): rename it.")
        if files:
            sets[name] = files
    if named and not sets and not natural and whole:
        raise InputError(f"{root} holds no images: put sets in folders named {', '.join(IMAGE_SETS)}.")
    return sets


def _enough(n: int, first: int, what: object) -> None:
    if first and n <= first:
        raise InputError(
            f"`odin_split` leaves out the first {first:,} images, but {what} has only {n:,}: leave it out."
        )


def on_pixels(classifier: Classifier, batch: FloatPixels) -> Tensor:
    return classifier.pixels(batch.pixels)


def _side(path: Path, size: int) -> int:
    """The side in pixels of a set's first image: ``size``, or up to a quarter more for sets with a border."""
    height, width = _read(path).shape[:2]
    if height != width or not size <= height <= 1.25 * size:
        raise InputError(
            f"{path} is {width} x {height} px, not {size}: these sets are made for one size; the suite ood-features "
            f"resizes others."
        )
    return height


def _fits(path: Path, size: int) -> bool:
    height, width = _read(path).shape[:2]
    return height == width and size <= height <= 1.25 * size


def _image_batches(files: list[Path], side: int, size: int) -> Callable[[World, EvalConfig], Iterator[FloatPixels]]:
    """Images of ``side`` pixels, of which the center ``size`` are used."""
    low = (side - size) // 2

    def batches(world: World, config: EvalConfig) -> Iterator[FloatPixels]:
        for rows in _rows(0, len(files), world, config.batch_size):
            images = [_read(files[i]) for i in rows]
            for i, image in zip(rows, images):
                height, width = image.shape[:2]
                if (height, width) != (side, side):
                    raise InputError(f"{files[i]} is {width} x {height} px, the set's others {side}: fetch it again.")
            centers = np.stack([image[low : low + size, low : low + size] for image in images])
            batch = to_device(torch.from_numpy(centers), world.device).permute(0, 3, 1, 2).float() / 255
            yield _unlabelled(batch, rows)

    return batches


def _read(path: Path) -> np.ndarray:
    try:
        stored = path.read_bytes()
        return pixels(stored, header(stored).plain)
    except ERRORS as error:
        raise RunError(f"cannot read {path} ({reason(error)}): fetch that set again, or remove the file.") from error


def _noise(name: str, images: range, size: int, seed: int) -> Callable[[World, EvalConfig], Iterator[FloatPixels]]:
    def batches(world: World, config: EvalConfig) -> Iterator[FloatPixels]:
        for rows in _rows(images.start, images.stop, world, config.batch_size):
            draw = philox.normal if name == "gaussian" else philox.uniform
            values = torch.from_numpy(philox.field(draw, seed, rows, 3 * size * size, 0, f"ood_{name}"))
            drawn = to_device(values.view(len(rows), 3, size, size), world.device)
            yield _unlabelled((drawn + 0.5).clamp(0, 1) if name == "gaussian" else drawn, rows)

    return batches


def _rows(first: int, last: int, world: World, batch_size: int) -> Iterator[np.ndarray]:
    for start in range(first + world.rank * batch_size, last, world.size * batch_size):
        yield np.arange(start, min(start + batch_size, last))


def _unlabelled(batch: Tensor, rows: np.ndarray) -> FloatPixels:
    return FloatPixels(batch, torch.zeros(len(rows), dtype=torch.int64, device=batch.device), torch.from_numpy(rows))
