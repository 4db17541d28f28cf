"""``fastreg predict``: the most probable classes of image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fastreg.distributed import resolve_device
from fastreg.errors import InputError
from fastreg.evaluation.classifier import Classifier, borrowed
from fastreg.evaluation.config import CROP_PCT, EvalConfig
from fastreg.evaluation.imagenet_classes import imagenet_classes
from fastreg.evaluation.load_model import load_classifier
from fastreg.evaluation.published_weights import is_published
from fastreg.files import atomic_write
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD
from fastreg.models.own import is_own
from fastreg.pipelines.datasets import DATASETS
from fastreg.pipelines.decode_pillow import eval_crop
from fastreg.pipelines.decoder import worker_count
from fastreg.pipelines.file_list import EXTENSIONS
from fastreg.pipelines.image import ERRORS, header, pixels, reason
from fastreg.pipelines.loader_table import INTERPOLATIONS
from fastreg.torch_switches import torch_switches

COLUMNS = ("image", "rank", "output", "class", "probability")


class Prediction(NamedTuple):
    """The most probable classes of one image, the most probable first."""

    image: Path
    outputs: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()  # from 0 to 1
    error: str = ""  # why the image cannot be read; then the other fields are empty


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    model: str | None = None,
    topk: int = 5,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    **options: Any,
) -> Iterator[Prediction]:
    """The most probable classes of image files.

    Args:
        run: a run folder, a checkpoint, or the name of a model with published weights (``timm:NAME``) or of the user's
            own (``package.module:function``).
        images: image files, and folders, which are searched for images with all their subfolders.
        model: the user's own model, for a run of it.
        topk: classes per image; at most as many as the model has.
        device: "auto", "cpu", "cuda", "cuda:1".
        batch_size: images per forward pass.
        workers: decoding threads.
        options: ``size``, ``crop_pct``, ``interpolation``, ``mean`` and ``std`` of
            :func:`fastreg.evaluation.evaluate`; default: those of the run, or of the published weights.

    Returns:
        An iterator of a :class:`Prediction` per image, in order. One that cannot be read has its ``error`` instead.

    Raises:
        InputError: no such run, model or file, a folder without images, or a value out of range.
    """
    if topk < 1:
        raise InputError(f"`topk` is {topk}: give 1 or more.")
    given = {key: value for key, value in options.items() if value is not None or key in ("mean", "std")}
    EvalConfig(**given, batch_size=batch_size)  # before any work
    files = list(_files(images))
    name = str(run) if is_published(str(run)) or (is_own(str(run)) and not Path(run).exists()) else None
    net, config = load_classifier(model=name) if name else load_classifier(run, model=model)
    checked = EvalConfig(**{**_preparation(config), **given}, batch_size=batch_size)
    return _predictions(net, config, files, checked, resolve_device(device), topk, worker_count(workers))


def _preparation(config: dict[str, Any]) -> dict[str, Any]:
    """The size, crop, interpolation and normalization with which a model was validated or published."""
    statistics: dict[str, Any] = {key: config[key] for key in ("mean", "std") if key in config}
    prepared = config.get("prepared")
    if prepared is not None and prepared.interpolation in INTERPOLATIONS:
        return {**statistics, **prepared.options}
    spec = DATASETS.get(config.get("dataset", ""))
    whole = spec is not None and spec.layout != "folder"  # CIFAR's images are taken as they are
    size = config.get("eval_size") or config.get("fixed_size") or (32 if whole else 224)
    own: dict[str, Any] = {} if whole else {key: config[key] for key in ("crop_pct", "interpolation") if key in config}
    return {**statistics, "size": size, "crop_pct": 1.0 if whole else CROP_PCT, **own}


def _files(images: Sequence[str | Path]) -> Iterator[Path]:
    """The image files, those of folders sorted. Raises InputError for a path without any."""
    if not images:
        raise InputError("no image was named: give files or folders as `images`.")
    for path in map(Path, images):
        inside = [path]
        if path.is_dir():
            found = (f for f in path.rglob("*") if f.suffix.lower() in EXTENSIONS and not f.name.startswith("."))
            inside = sorted(found)
        if not inside or not inside[0].exists():
            what = f"the folder {path} holds no images" if path.is_dir() else f"no image at {path}"
            raise InputError(f"{what}: give files, or folders that hold {', '.join(EXTENSIONS)} files, as `images`.")
        yield from inside


def _predictions(
    net: Any,
    config: dict[str, Any],
    files: Sequence[Path],
    options: EvalConfig,
    device: torch.device,
    topk: int,
    workers: int,
) -> Iterator[Prediction]:
    size = options.size or 224

    def read(path: Path) -> np.ndarray | str:
        try:
            stored = path.read_bytes()
            whole = pixels(stored, header(stored).plain)
            return eval_crop(whole, size, 1 / options.crop_pct, options.interpolation)
        except ERRORS as error:
            return reason(error)

    mean = IMAGENET_MEAN if options.mean == "data" else options.mean
    std = IMAGENET_STD if options.std == "data" else options.std
    with torch.inference_mode(False), borrowed(net), torch_switches(tf32=False), ThreadPoolExecutor(workers) as pool:
        classifier = Classifier(net, mean=mean, std=std, device=device, precision="fp32")
        names = _names(config, classifier.outputs(size))
        for start in range(0, len(files), options.batch_size):
            paths = files[start : start + options.batch_size]
            arrays = list(pool.map(read, paths))
            good = [array for array in arrays if isinstance(array, np.ndarray)]
            if good:
                logits = classifier.images(torch.from_numpy(np.stack(good)).to(device))
                p, k = logits.softmax(1).topk(min(topk, logits.shape[1]))
                found = zip(p.tolist(), k.tolist())
            for path, array in zip(paths, arrays):
                if isinstance(array, str):
                    yield Prediction(path, error=array)
                else:
                    probabilities, outputs = next(found)
                    classes = tuple(names[output] for output in outputs)
                    yield Prediction(path, tuple(outputs), classes, tuple(probabilities))


def _names(config: dict[str, Any], outputs: int) -> Sequence[str]:
    """The names of a model's outputs: the run's classes, ImageNet's for 1000 outputs, otherwise their numbers.

    WordNet ids of ImageNet get its names too.
    """
    known = imagenet_classes()
    classes = config.get("classes") or (list(known) if outputs == len(known) else list(map(str, range(outputs))))
    return [f"{known[name]} ({name})" if name in known else name for name in classes]


def write_csv(predictions: Iterable[Prediction], path: str | Path | None) -> str:
    """A row per image and rank, with the columns ``COLUMNS``; returns the text, and writes it to ``path`` if given."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in predictions:
        rows = zip(one.outputs, one.classes, one.probabilities)
        writer.writerows((one.image, rank, *row[:2], f"{row[2]:.6f}") for rank, row in enumerate(rows, 1))
    if path is not None:
        atomic_write(Path(path), buffer.getvalue())
    return buffer.getvalue()
