"""``fastreg corrupt``: write the corrupted versions of a data set in the published layouts.

Folders ``<corruption>/<severity>/<class>/*.JPEG`` at quality 85 (ImageNet-C), or ``<corruption>.npy``, severity-major,
and ``labels.npy`` (CIFAR-C) for CIFAR. A condition is one corruption at one severity, for CIFAR's arrays at all five.
``corrupted.json`` lists the requested conditions, and the finished ones with their digests. A repeated call reads these
back first, and writes missing and changed conditions again. With ``shard``, several processes share the conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastreg.distributed import World, resolve_device
from fastreg.environment import environment, installed
from fastreg.errors import InputError
from fastreg.evaluation import conditions
from fastreg.evaluation.conditions import SEVERITIES, corruption_conditions
from fastreg.evaluation.config import CROP_PCT
from fastreg.evaluation.corrupted_layouts import (
    QUALITY,
    digest_of_array,
    digest_of_folder,
    file_names,
    write_array,
    write_folder,
    write_labels,
)
from fastreg.evaluation.corrupted_manifest import (
    join_shards,
    read_manifest,
    shard_files,
    union,
    write_manifest,
)
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.pixel_cache import PixelCache
from fastreg.files import lock
from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from fastreg.progress import progress
from fastreg.shard import Shard, parse_shard
from fastreg.torch_switches import torch_threads
from fastreg.version import __version__


def corrupt_dataset(
    src: Any,
    dst: str | Path,
    *,
    corruptions: str | Iterable[str] = "all",
    severities: str | Iterable[int] = "all",
    split: str = "val",
    train_split: str | None = None,
    val_split: str | None = None,
    val_share: float | None = None,
    data_dir: str | Path | None = None,
    size: int | None = None,
    crop_pct: float = CROP_PCT,
    constants: str = "auto",
    frost_dir: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    shard: str | Shard | None = None,
) -> dict[str, Any]:
    """Write the corrupted versions of a data set.

    Every condition is read back before it enters the manifest, and again in a later call that requests it.

    Args:
        src: a Source, a data set's name, or a folder (class folders, or CIFAR's pickles).
        dst: the folder to write; a call with the same settings continues there.
        corruptions: "all", or names, also joined by commas.
        severities: "all", or some of 1 to 5, also joined by commas. CIFAR's arrays hold all five.
        split: "train" or "val".
        train_split, val_split: names of the splits in the names of folders and shards.
        val_share: the share of the training split that ``split`` "val" stands for, and "train" leaves out.
        data_dir: root of the data set named ``src``; default: as for ``open_dataset``.
        size: side of the images in pixels; default 224, CIFAR 32.
        crop_pct: ``size`` over the shorter side after the resize that precedes the center crop.
        constants: severities of "imagenet224", "imagenet299", "tiny64" or "cifar32"; "auto" selects those of the
            nearest published size, and scales frost to others.
        frost_dir: folder of the five frost textures.
        seed: key of every random draw.
        device: "auto", "cpu", "cuda", "cuda:1".
        batch_size: images corrupted at once.
        workers: threads; None: the CPUs that this process may use.
        shard: "I/N", I from 1 to N: write every N-th of the requested conditions, from the I-th on. N such calls, at
            any time and on any machines that share ``dst``, write what one call without ``shard`` writes.

    Returns:
        The manifest's rows of the requested conditions, or of the shard's share of them.

    Raises:
        InputError: an unknown name; a ``dst`` that holds a set of other data, settings or version of fastreg, or is
            being written; frost textures that are missing or do not fit; a ``shard`` that is not I/N, or belongs to
            another set of shards than those in ``dst``.
        RunError: a condition that cannot be written, or does not read back.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` is {batch_size}: give 1 or more.")
    stored = {"train_split": train_split, "val_split": val_split, "val_share": val_share}
    eval_data = EvalData(_open(src, split, data_dir, stored), size, crop_pct)
    names = (*CORRUPTIONS, *EXTRA_CORRUPTIONS) if corruptions == "all" else corruptions
    pairs = corruption_conditions(names, None if severities == "all" else severities)
    name, scale = conditions.nearest_constants(constants, eval_data.size)
    drawn: dict[str, Any] = {"seed": seed, "constants": name}
    arrays = eval_data.source.layout != "folder"
    if arrays and len({severity for _, severity in pairs}) < len(SEVERITIES):
        raise InputError("`severities`: CIFAR-C's arrays hold all five: leave it at all.")
    where = resolve_device(device)
    settings = {"data": eval_data.describe(), **drawn, "fidelity": "dataset", "jpeg": None if arrays else QUALITY}
    settings |= {"frost_scale": scale} if scale != 1 else {}  # the size has no published constants
    settings["fastreg"] = __version__
    dst = Path(dst)
    wanted = list(dict.fromkeys((name, 0 if arrays else severity) for name, severity in pairs))
    keys = [_key(*pair) for pair in wanted]
    shard = parse_shard(shard)
    _check(dst, settings, keys, shard)  # refuses a folder with other content before anything is written there
    with lock(dst, other="DST", shard=shard.of if shard else None):
        manifest = _check(dst, settings, keys, shard)
        labels = eval_data.source.labels
        files = file_names([eval_data.source.describe(i) for i in range(len(labels))], eval_data.names, labels.tolist())
        own = shard.own(wanted) if shard else wanted
        left = _unfinished(dst, own, manifest["parts"], files)
        if any(name == "frost" for name, _ in left):
            drawn["textures"] = conditions.frost_textures(frost_dir, eval_data.size, name, scale)
        if shard:
            known = manifest["parts"]
            finished = {key: known[key] for pair in own if (key := _key(*pair)) in known}
            manifest |= {"wanted": keys, "parts": finished}
        else:
            manifest["wanted"] = union(manifest["wanted"], keys)
        for pair in left:
            manifest["parts"].pop(_key(*pair), None)
        write_manifest(dst, manifest, shard)
        if shard is None:  # which has the shards' rows
            for path, _ in shard_files(dst):
                path.unlink(missing_ok=True)
        if arrays:
            write_labels(dst / "labels.npy", np.tile(labels, len(SEVERITIES)))
        if left:
            from fastreg.pipelines.decoder import worker_count

            pixels = eval_data.decode(World(0, 1, where), batch_size=batch_size, workers=workers)
            threads = worker_count(workers)
            with torch_threads(threads), ThreadPoolExecutor(threads) as pool:
                _write(dst, manifest, left, pixels, files, batch_size, drawn, pool, shard)
        if shard:
            join_shards(dst)
    return {key: manifest["parts"][key] for pair in own if (key := _key(*pair))}


def _write(
    dst: Path,
    manifest: dict[str, Any],
    pairs: list[tuple[str, int]],
    pixels: PixelCache,
    files: list[str],
    batch_size: int,
    drawn: dict[str, Any],
    pool: Executor,
    shard: Shard | None,
) -> None:
    """Write the conditions in order. Each enters the manifest after it was read back."""
    here = _environment(pixels.device)
    if here not in manifest["environments"]:
        manifest["environments"].append(here)
    n, number = len(pixels), manifest["environments"].index(here)
    total = n * sum(1 if severity else len(SEVERITIES) for _, severity in pairs)
    with progress("corrupt", total) as bar:
        for name, severity in pairs:
            group = (severity,) if severity else SEVERITIES
            batches = _batches(pixels, name, group, batch_size, drawn, bar)
            if severity:
                digest = write_folder(dst / name / str(severity), files, batches, pool)
            else:
                digest = write_array(dst / f"{name}.npy", (len(group) * n, pixels.size, pixels.size, 3), batches)
            row = {"n": len(group) * n, "sha256": digest, "environment": number}
            manifest["parts"][_key(name, severity)] = row
            write_manifest(dst, manifest, shard)


def _environment(device: torch.device) -> dict[str, Any]:
    """The versions and the hardware that the pixels may depend on."""
    found = environment()
    packages = found["packages"] | installed("opencv-python-headless")
    hardware = {key: found[key] for key in ("platform", "cpu_count", "gpu", "cuda")}
    return {"python": found["python"], "packages": packages, "device": device.type, **hardware}


def _unfinished(
    dst: Path, pairs: list[tuple[str, int]], listed: dict[str, Any], files: list[str]
) -> list[tuple[str, int]]:
    """The conditions that are not listed, or whose files do not have the listed digest. Reads all listed files."""
    left = []
    with progress("read back", sum(listed[key]["n"] for pair in pairs if (key := _key(*pair)) in listed)) as bar:
        for name, severity in pairs:
            row, found = listed.get(_key(name, severity)), None
            if row is not None:
                folder = dst / name / str(severity)
                found = digest_of_folder(folder, files) if severity else digest_of_array(dst / f"{name}.npy")
                bar.advance(row["n"], note=f"{name} {severity or ''}".strip())
            if row is None or found != row["sha256"]:
                left.append((name, severity))
    return left


def _batches(
    pixels: PixelCache, name: str, severities: Iterable[int], batch_size: int, drawn: dict[str, Any], bar: Any
) -> Iterator[np.ndarray]:
    for severity in severities:
        for batch in pixels.batches(batch_size):
            images = corrupt(batch.images, name, severity, indices=batch.indices, **drawn)
            yield images.cpu().numpy()
            bar.advance(len(images), note=f"{name} {severity}")


def _key(name: str, severity: int) -> str:
    return f"{name}/{severity}" if severity else name


def _open(src: Any, split: str, data_dir: str | Path | None, stored: dict[str, Any]) -> Any:
    from fastreg.pipelines import DATASETS, open_dataset
    from fastreg.pipelines.datasets import validation_as

    if not isinstance(src, str | Path):
        if any(value is not None for value in stored.values()):
            raise InputError(
                "`train_split`, `val_split` and `val_share` choose a split of files, and `src` is an open data set: "
                "leave them out."
            )
        return src
    if split == "train" and stored["val_split"] is not None:
        raise InputError("`val_split` names the validation split, and `split` is train: leave it out.")
    named = str(src) in DATASETS
    if data_dir is not None and not named:
        raise InputError(f"`data_dir` is the root of a data set that `src` names, and {src} is a folder: leave it out.")
    if named or any(value is not None for value in stored.values()):
        train = {"split_name": stored["train_split"], "val_share": stored["val_share"]}
        opened_as = train if split == "train" else validation_as({}, **stored)
        return open_dataset(str(src) if named else "folder", split, data_dir if named else src, **opened_as)
    for name, inside in (("cifar100", "cifar-100-python"), ("cifar10", "cifar-10-batches-py")):
        if (Path(src) / inside).is_dir():
            return open_dataset(name, split, src)
    return src


def _check(dst: Path, settings: dict[str, Any], keys: list[str], shard: Shard | None) -> dict[str, Any]:
    """The manifest of ``dst``. Raises InputError if it was made from other data or settings, or by other shards."""
    known = read_manifest(dst)
    if known is None:
        if dst.is_dir() and any(not file.name.startswith(".lock") for file in dst.iterdir()):
            raise InputError(f"{dst} is not empty and was not begun by this command: give an empty or a new folder.")
        return {"settings": settings, "wanted": [], "environments": [], "parts": {}}
    before = known["settings"]
    if before != settings:
        other = [
            key if key == "data" else f"{key} ({before.get(key)}, not {settings.get(key)})"
            for key in {**before, **settings}
            if before.get(key) != settings.get(key)
        ]
        raise InputError(f"{dst} holds a set made with other {' and '.join(other)}: give another folder.")
    if shard and known["shards"] and (known["shards"] != shard.total or known["requested"] != keys):
        raise InputError(
            f"`shard` is {shard}, but {dst} is being written in {known['shards']} shards of "
            f"{len(known['requested'])} conditions: give the same N and the same conditions to each."
        )
    return known
