"""``fastreg data prepare``: one split of a data set as one ``.beton`` file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from fastreg.errors import InputError, RunError, unknown
from fastreg.pipelines.address import is_address, is_pattern, normalized
from fastreg.pipelines.beton import JPEG, BetonSource
from fastreg.pipelines.beton_shards import check_no_run_without_shards, join_shards
from fastreg.pipelines.beton_write import MAX_SIDE, BetonWriter, Encoded, raw_bytes
from fastreg.pipelines.datasets import DATASETS, SPLITS, open_dataset, split_named
from fastreg.pipelines.decode_pillow import eval_crop
from fastreg.pipelines.decoder import BatchRequest, DecodePool, cancel_all, look_ahead, report_bad_image, worker_count
from fastreg.pipelines.image import ERRORS, header, pixels, reason
from fastreg.pipelines.source import FolderSource, Source
from fastreg.pipelines.storage import find_split
from fastreg.progress import progress
from fastreg.shard import Shard, parse_shard, shard_path


def write_beton(
    name: str,
    source_dir: str | Path,
    to: str | Path,
    *,
    split: str | None = None,
    max_res: int | None = 500,
    jpeg_prob: float = 0.5,
    quality: int | None = 90,
    raw: int | None = None,
    workers: int | None = None,
    on_bad_image: str = "error",
    image_key: str | None = None,
    label_key: str | None = None,
    shard: str | Shard | None = None,
) -> dict[str, Any]:
    """Write one split of a data set as a ``.beton`` file that fastreg and FFCV read.

    If the call is stopped or the disk is full, the same call continues. A finished file is left unchanged.

    Args:
        name: A key of ``DATASETS``.
        source_dir: Root of the data set as for ``open_dataset``, or a folder of class folders.
        to: The ``.beton`` file to write.
        split: ``"train"`` or ``"val"``; by default the split named in ``to``, else in the folder's name, else "train".
        max_res: Longest side in pixels; larger images are shrunk by area averaging, as FFCV's writer does. None: any.
        jpeg_prob: Share of the images stored as JPEG; the others are stored as pixels.
        quality: JPEG quality, 1 to 100; None keeps the file's own bytes if nothing has to change.
        raw: Store every image as a raw canvas of this side instead: resize of the shorter side, then center crop.
        workers: Threads; None: this process's share of the cores.
        on_bad_image: ``"error"``, or ``"skip"`` to leave broken images out.
        image_key, label_key: As for ``open_dataset``.
        shard: "I/N", I from 1 to N: write the I-th of N runs of consecutive samples to a file beside ``to``. The last
            of N such calls to finish joins these files into ``to``, with the bytes that one call without ``shard``
            writes.

    Returns:
        {"path", "split", "images", "bytes", "skipped"} of ``to``, or of the shard's file.

    Raises:
        InputError: An argument is unusable, or ``to`` or a shard was made from other data or settings.
        RunError: An image is broken, a file cannot be read, or the disk is full.
    """
    to, text = Path(to), normalized(source_dir)
    root = text if is_address(text) or (is_pattern(text) and not Path(text).exists()) else Path(text)
    if to.suffix != ".beton" or to.is_dir():
        raise InputError(f"`to` is {to}: give a file whose name ends in .beton.")
    if not 0 <= jpeg_prob <= 1:
        raise InputError(f"`jpeg_prob` is {jpeg_prob}: give a share between 0 and 1.")
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(
            f"`quality` is {quality}: give 1 to 100; None (0 on the command line) keeps the file's own bytes."
        )
    for parameter, value in (("max_res", max_res), ("raw", raw)):
        if value is not None and not 1 <= value <= MAX_SIDE:
            raise InputError(f"`{parameter}` is {value}: give 1 to {MAX_SIDE} pixels.")
    if on_bad_image not in ("error", "skip"):
        raise unknown("`on_bad_image`", on_bad_image, ("error", "skip"))
    if isinstance(root, Path) and not root.exists():
        raise InputError(f"`source_dir` {root} does not exist: give the folder of the data set.")
    split = split or split_named(to.stem) or split_named(text.rstrip("/").rsplit("/", 1)[-1]) or "train"
    split = "val" if split == "test" else split
    source = _open(name, split, root, image_key=image_key, label_key=label_key)
    if source.layout != "folder":
        raise InputError(f"{name} is read whole into memory: use it as it is, without preparing it.")
    if raw is not None:
        max_res, jpeg_prob, quality = None, 0.0, None
    shard = parse_shard(shard)
    if shard and shard.total > len(source):
        raise InputError(f"`shard` is {shard}, but there are {len(source)} images: give a smaller N.")
    settings: dict[str, Any] = {
        "max_res": max_res,
        "jpeg_prob": float(jpeg_prob),
        "quality": quality,
        "raw": raw,
        "split": split,
        "from": source.fingerprint,
    }
    if to.exists():
        images = _finished(to, name, split, settings)
        if shard:
            shard_path(to, shard).unlink(missing_ok=True)
        return _made(to, split, images, len(source) - images)
    about = {**settings, "classes": list(source.classes), "sample": source.is_sample}
    side = raw or max_res or 4096
    whole, room, rows = to, (len(source), 3 * side * side), range(len(source))
    if shard:
        check_no_run_without_shards(to)
        to, rows = shard_path(to, shard), shard.rows(len(source))
        if to.exists():
            images = _finished(to, name, split, {**settings, "shard": str(shard)})
            made = _made(to, split, images, len(rows) - images)
            join_shards(whole, name, split, shard.total, settings, about, room)
            return made
        settings, about = settings | {"shard": str(shard)}, about | {"shard": str(shard)}

    def encode(request: BatchRequest, first: int, stop: int) -> list[Encoded | None]:
        done: list[Encoded | None] = []
        for index in request.indices[first:stop].tolist():
            try:
                as_jpeg = int((index + 1) * jpeg_prob) > int(index * jpeg_prob)
                sample = _encode(source.read(index), max_res, quality, raw, as_jpeg)
                writer.check(sample)
                done.append(sample)
            except (*ERRORS, cv2.error) as error:
                report_bad_image(source, index, reason(error), on_bad_image)
                done.append(None)
        return done

    pool = DecodePool(worker_count(workers))
    writer = BetonWriter(to, settings, *room)
    begun = max(writer.next, rows.start)
    requests = (BatchRequest(0, np.arange(a, min(a + 64, rows.stop))) for a in range(begun, rows.stop, 64))

    def start(request: BatchRequest) -> Any:
        return request, pool.map_chunks(request, encode)

    try:
        with progress(f"prepare {to.name}", len(rows), done=begun - rows.start) as bar:
            for request, futures in look_ahead(requests, start, 2, lambda started: cancel_all(started[1])):
                try:
                    samples = [sample for future in futures for sample in future.result()]
                finally:
                    cancel_all(futures)
                for index, sample in zip(request.indices.tolist(), samples):
                    if sample is not None:
                        writer.add(index, int(source.labels[index]), sample)
                bar.advance(len(samples))
        writer.finish(about)
    except OSError as error:
        raise RunError(
            f"cannot write {to}: {error.strerror or error}; free some space and run the same command to continue."
        ) from None
    finally:
        writer.close()
        pool.close()
    made = _made(to, split, len(writer.records), len(rows) - len(writer.records))
    if shard:
        settings, about = ({k: v for k, v in given.items() if k != "shard"} for given in (settings, about))
        join_shards(whole, name, split, shard.total, settings, about, room)
    return made


def _open(name: str, split: str, root: Path | str, **keys: Any) -> Source:
    """A split of the data set at ``root``; without splits, the class folders in ``root``."""
    if isinstance(root, Path) and root.is_dir() and name in DATASETS and split in SPLITS:
        bare = not find_split(root, split).kind and not any((root / other).is_dir() for other in SPLITS)
        if bare and DATASETS[name].layout == "folder":
            return FolderSource(root.parent, name, root.name, DATASETS[name])
    return open_dataset(name, split, root, **keys)


def _finished(to: Path, name: str, split: str, settings: dict[str, Any]) -> int:
    """Number of images of a finished file. Raises InputError if other data or settings made it."""
    try:
        there = BetonSource(to, name, split, DATASETS[name])
    except InputError:
        there = None
    if there is None or {key: there.about.get(key) for key in settings} != settings:
        raise InputError(
            f"{to} exists and was made from other data or with other settings: remove it, or set `to` to another file."
        )
    return len(there)


def _made(to: Path, split: str, images: int, skipped: int) -> dict[str, Any]:
    return {"path": str(to), "split": split, "images": images, "bytes": to.stat().st_size, "skipped": skipped}


def _encode(
    stored: bytes | np.ndarray, max_res: int | None, quality: int | None, raw: int | None, as_jpeg: bool
) -> Encoded:
    head = header(stored)
    array = pixels(stored, head.plain)
    if raw is not None:
        return raw_bytes(eval_crop(array, raw, 1.0))
    fits = max_res is None or max(head[:2]) <= max_res
    if as_jpeg and quality is None and fits and head.plain and isinstance(stored, bytes):
        return Encoded(JPEG, head.width, head.height, stored)
    if not fits and max_res is not None:
        ratio = max_res / max(head[:2])
        size = max(1, int(head.width * ratio)), max(1, int(head.height * ratio))
        array = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    if not as_jpeg:
        return raw_bytes(array)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality or 95)
    return Encoded(JPEG, array.shape[1], array.shape[0], buffer.getvalue())
