"""``fastreg eval``: find the model and its data, evaluate, and leave the scorecard in the run's folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastreg import runs
from fastreg.distributed import resolve_device
from fastreg.errors import InputError, unknown
from fastreg.evaluation.config import make_config
from fastreg.evaluation.engine import evaluate
from fastreg.evaluation.eval_data import open_folder
from fastreg.evaluation.imagenet_classes import are_imagenet, imagenet_classes
from fastreg.evaluation.load_model import check_architecture, load_classifier
from fastreg.evaluation.natural_suite import stand_in
from fastreg.evaluation.published_weights import (
    CLASSES,
    is_published,
    preparation_facts,
    published_options,
    robustbench_data,
)
from fastreg.evaluation.scorecard import Scorecard
from fastreg.evaluation.suites import ROWS, resolve
from fastreg.log import log
from fastreg.models.own import is_own
from fastreg.pipelines import Source, open_dataset
from fastreg.pipelines.datasets import validation_as

GPU_BATCH, CPU_BATCH = 256, 64
PROTOCOLS = ("paper", "published")
ELSEWHERE = (
    "classes",
    "mean",
    "std",
    "fixed_size",
    "prepared",
    "crop_mode",
    "weights_note",
)  # not in the card's training settings


def run(
    checkpoint: str | Path | None = None,
    suites: str | Iterable[str] = "clean",
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    model: str | None = None,
    protocol: str = "paper",
    data: str | None = None,
    data_dir: str | Path | None = None,
    train_split: str | None = None,
    val_split: str | None = None,
    val_share: float | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    class_map: str | Path | None = None,
    cache_dir: str | Path | None = None,
    cache_gb: float | None = None,
    runs_root: str | Path = "runs",
    **options: Any,
) -> tuple[Scorecard, Path]:
    """Evaluate a checkpoint, a file of weights, published weights, or a model of the user.

    Args:
        checkpoint: a run folder or .pt file; None without ``weights`` and a ``model`` that has its own: the newest
            run's best.
        suites: names, as for :func:`fastreg.evaluation.evaluate`.
        weights: a file of weights of the architecture ``model``.
        weights_key: the dict or prefix of the weights in that file, if it has several.
        model: as for :func:`fastreg.evaluation.load_classifier`.
        protocol: the preparation of images for published weights: "paper", or "published" (the size, resize, crop and
            interpolation with which timm or torchvision published them). Other options have precedence.
        data: a data set's name, or ``folder:DIR`` for another folder of images with the model's classes; default: the
            data set of the training. Foreign weights on a folder are assumed to have ImageNet's classes. Their names
            are WordNet ids, or those of the ImageNet at ``data_dir`` (default: as for ``open_dataset``).
        data_dir: root of the data set.
        train_split, val_split: names of the splits; with ``val_share`` a share of the training split is evaluated. By
            default as in the training, on its data set.
        val_share, image_key, label_key, class_map, cache_dir, cache_gb: as for ``open_dataset``; with the same default.
        runs_root: folder of run folders.
        options: options of :func:`fastreg.evaluation.evaluate`, with other defaults: ``device`` is a GPU if there is
            one, ``batch_size`` is 256 on a GPU and 64 on the CPU, ``size`` is the run's, and ``out`` is the run's
            folder (for foreign weights ``runs_root/<file name or model>``), or ``on-<data>`` in it if the data is not
            that of the training.

    Returns:
        The card, and the folder that holds scorecard.json.

    Raises:
        InputError, RunError: see :func:`fastreg.evaluation.evaluate`.
    """
    given = {key: value for key, value in options.items() if value is not None or key in ("mean", "std")}
    make_config(given)
    resolve(suites, 0)  # raises for a wrong name, before anything is read
    stored: dict[str, Any] = {"image_key": image_key, "label_key": label_key, "class_map": class_map}
    stored |= {"train_split": train_split, "val_split": val_split, "val_share": val_share}
    stored |= {"cache_dir": cache_dir, "cache_gb": cache_gb}
    validation_as({"val_share": 0.5}, **stored)  # raises for two that exclude each other
    if weights is not None:
        _check_weights(weights, checkpoint, model)
    if protocol not in PROTOCOLS:
        raise unknown("`protocol`", protocol, PROTOCOLS)
    if data is None and (folder_of_set := stand_in(suites, data_dir)) is not None:  # the sets alone, without ImageNet
        data, data_dir = f"folder:{folder_of_set}", None
    foreign = weights is not None or (checkpoint is None and (is_published(model) or is_own(model)))
    if protocol == "published" and (weights is not None or not foreign or is_own(model)):
        raise InputError(
            "`protocol` published is for weights that timm and torchvision publish (timm:NAME or torchvision:NAME as "
            "`model`): give `size`, `crop_pct` and `interpolation` instead."
        )
    if foreign:
        data = data or (robustbench_data(model) if str(model).startswith("robustbench:") else "imagenet")
        source = _open(data, data_dir, stored)
        net, trained = _foreign(source, data, data_dir, checkpoint, weights, weights_key, str(model) if model else None)
    else:
        net, trained = load_classifier(checkpoint, weights_key=weights_key, model=model, runs_root=runs_root)
        data = data or trained["dataset"]
        if data_dir is None and data == trained["dataset"]:
            data_dir = runs.stored_data_dir(trained)
        source = _open(data, data_dir, stored, trained if data == trained["dataset"] else {})
    if protocol == "published":
        given = {**published_options(trained), **given}
    device = resolve_device(given.setdefault("device", "auto"))
    given.setdefault("batch_size", GPU_BATCH if device.type == "cuda" else CPU_BATCH)
    fixed = source.canvas if source.layout != "folder" else None  # CIFAR's
    if not fixed and trained.get("eval_size"):
        given.setdefault("size", trained["eval_size"])
    for name in ("crop_pct", "interpolation") if not fixed and not foreign else ():  # of the run's validation
        if name in trained:
            given.setdefault(name, trained[name])
    size = fixed[0] if fixed else given.get("size", 224)
    if trained.get("fixed_size", size) not in (None, size):
        side = trained["fixed_size"]
        raise InputError(f"{model} takes images of {side} px only, not {size}: give {side} as `size`.")
    if any(ROWS[name].fitted for name in resolve(suites, size, data)) and "fit_data" not in given:
        own = trained if data == trained.get("dataset") else {}
        opened = {**validation_as(own, **stored), "split_name": train_split or own.get("train_split")}
        given["fit_data"] = _training_set(source, data, data_dir, opened)
    facts: dict[str, Any] = {"training": {key: value for key, value in trained.items() if key not in ELSEWHERE}}
    facts |= preparation_facts(trained.get("prepared"), size, make_config(given))
    if "weights_note" in trained:
        facts["weights_note"] = trained["weights_note"]
    saved = Path(trained["checkpoint"])
    if "out" not in given:
        own_name = saved.stem if weights is not None else str(model).replace(":", "-").replace("/", "-")
        folder = Path(runs_root) / own_name if foreign else saved.parent
        if data != trained.get("dataset", "imagenet"):  # the run's own card stays unchanged
            folder /= "on-" + data.removeprefix("folder:").strip("./").replace("/", "-")
        given["out"] = folder
    defaults: dict[str, Any] = {key: trained[key] for key in ("mean", "std") if key in trained}
    defaults |= {"classes": trained["classes"]} if trained.get("classes") else {}
    log.info(f"evaluating {trained['checkpoint']} on {data}")
    card = evaluate(
        net,
        suites,
        source,
        **{**defaults, "name": trained["model"], **given, "provenance": facts},
    )
    return card, Path(given["out"])


def _check_weights(weights: str | Path, checkpoint: str | Path | None, model: str | None) -> None:
    """Raise InputError for a missing file, or one without its architecture, before any data are opened."""
    check_architecture(weights, checkpoint, model)
    if not Path(weights).is_file():
        raise InputError(f"`weights` {weights} is not a file: give the path of one.")


def _open(
    data: str, data_dir: str | Path | None, stored: dict[str, Any], trained: Mapping[str, Any] = MappingProxyType({})
) -> Source:
    if not data.startswith("folder:"):
        return open_dataset(data, "val", data_dir, **validation_as(trained, **stored))
    for name, value in stored.items():
        if value is not None:
            raise InputError(f"`{name}` {value} does not fit `data` {data}, which is a folder of class folders.")
    return open_folder(data)


def _training_set(
    source: Source, data: str, data_dir: str | Path | None, opened: dict[str, Any]
) -> Source | Path | None:
    """The training split beside a validation set; None if there is none, which a note on the card says."""
    if data.startswith("folder:"):
        train = Path(source.root) / "train"
        return train if source.split == "val" and train.is_dir() else None
    try:
        found = open_dataset(data, "train", data_dir, **opened)
    except InputError as error:
        log.info(f"no training images for scores from features: {error}")
        return None
    return found if found.fingerprint != source.fingerprint else None  # one file is both splits


def _foreign(
    source: Source,
    data: str,
    data_dir: str | Path | None,
    checkpoint: str | Path | None,
    weights: str | Path | None,
    weights_key: str | None,
    model: str | None,
) -> tuple[Any, dict[str, Any]]:
    """A model that fastreg did not train, and its config, with the names of its outputs for a folder of images."""
    stem = "cifar" if data.startswith("cifar") else "imagenet"
    given: dict[str, Any] = {
        "checkpoint": checkpoint,
        "weights": weights,
        "weights_key": weights_key,
        "model": model,
        "stem": stem,
    }
    is_folder = data.startswith("folder:")
    if weights is None and (is_own(model) or str(model).startswith("robustbench:")):
        imagenet = is_folder and set(source.classes) <= set(imagenet_classes())
        given["num_classes"] = len(imagenet_classes()) if imagenet else len(source.classes)
    net, trained = load_classifier(**given)
    if is_own(model) and weights is None:
        return net, trained  # the engine matches its outputs with the data
    outputs = trained["num_classes"]
    if weights is None and not is_folder and len(source.classes) != outputs:
        knows = "ImageNet's 1000 classes" if outputs == CLASSES else f"{outputs} classes"
        raise InputError(
            f"{model} knows {knows} but the data has {len(source.classes)}: evaluate it on the set "
            f"it was trained for, or on a folder of some of its classes: give folder:DIR as `data`."
        )
    return net, {**trained, "classes": _names(source.classes, outputs, data_dir) if is_folder else source.classes}


def _names(folders: Sequence[str], outputs: int, data_dir: str | Path | None) -> Sequence[str] | None:
    """The names of a foreign model's outputs, for a folder of images; None: the folder's classes, in their order.

    They are ImageNet's if the model has as many outputs, unless the folder has as many classes with other names.
    """
    if are_imagenet(folders, outputs):
        return tuple(imagenet_classes())
    names = _imagenet_classes(data_dir)
    if len(names) != outputs or (len(folders) == outputs and not set(folders) <= set(names)):
        return None
    return names


def _imagenet_classes(data_dir: str | Path | None) -> tuple[str, ...]:
    """The class names of the ImageNet found on disk; empty without one, and then a folder must have all classes."""
    try:
        return open_dataset("imagenet", "val", data_dir).classes
    except InputError:
        if data_dir is not None:
            raise
        return ()
