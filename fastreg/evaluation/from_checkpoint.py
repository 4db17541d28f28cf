"""``fastreg eval``: find the model and its data, evaluate, and leave the scorecard in the run's folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastreg.distributed import resolve_device
from fastreg.errors import InputError
from fastreg.evaluation.config import make_config
from fastreg.evaluation.engine import evaluate
from fastreg.evaluation.load_model import is_published, load_classifier, protocol
from fastreg.evaluation.scorecard import Scorecard
from fastreg.evaluation.suites import resolve
from fastreg.log import log
from fastreg.pipelines import open_dataset

GPU_BATCH, CPU_BATCH = 256, 64


def run(
    checkpoint: str | Path | None = None,
    suites: str | Iterable[str] = "clean",
    *,
    weights: str | Path | None = None,
    model: str | None = None,
    data: str | None = None,
    data_dir: str | Path | None = None,
    runs_root: str | Path = "runs",
    **options: Any,
) -> tuple[Scorecard, Path]:
    """Evaluate a checkpoint, a file of weights, or published weights.

    Args:
        checkpoint: a run folder or .pt file; None without ``weights`` and a published ``model``: the newest run's best.
        suites: names, as for :func:`fastreg.evaluation.evaluate`.
        weights: a state dict of the architecture ``model``.
        model: the architecture; ``timm:NAME`` or ``torchvision:NAME`` alone: with its published weights.
        data: a data set's name, or ``folder:DIR`` for another folder of images with the model's classes; default: the
            data set of the training. Foreign weights on a folder are taken to have ImageNet's classes, whose names come
            from the ImageNet at ``data_dir`` (or where it is usually found).
        data_dir: where the data set lies.
        runs_root: folder of run folders.
        options: of :func:`fastreg.evaluation.evaluate`. Other defaults: ``device`` the GPU where there is one,
            ``batch_size`` 256 there and 64 on the CPU, ``size`` the run's, ``out`` the run's folder (of foreign weights
            ``runs_root/<file name or model>``), and in it ``on-<data>`` where that is not the data of the training.

    Returns:
        The card, and the folder that holds scorecard.json.

    Raises:
        InputError, RunError: see :func:`fastreg.evaluation.evaluate`.
    """
    crop_pct = make_config({key: value for key, value in options.items() if value is not None}).crop_pct
    resolve(suites, 0)  # raises for a wrong name, before anything is read
    source: Any = None
    net = None
    foreign = weights is not None or (checkpoint is None and is_published(model))
    if not foreign:
        net, trained = load_classifier(checkpoint, model=model, runs_root=runs_root)
        data = data or trained["dataset"]
        if data_dir is None and data == trained["dataset"]:
            data_dir = trained.get("data_dir")
    data = data or "imagenet"
    if not data.startswith("folder:"):
        source = open_dataset(data, "val", data_dir)
    if net is None:
        names = source.classes if source is not None else _imagenet_classes(data_dir)
        stem = "cifar" if data.startswith("cifar") else "imagenet"
        net, trained = load_classifier(
            checkpoint, weights=weights, model=model, num_classes=len(names) or 1000, stem=stem
        )
        trained["classes"] = names
        if weights is None and len(names) not in (0, trained["num_classes"]):
            raise InputError(
                f"{model} knows ImageNet's 1000 classes but the data has {len(names)}: evaluate it on the set it was "
                f"trained for, or on a folder of some of its classes: give folder:DIR as `data`."
            )
    given = {key: value for key, value in options.items() if value is not None or key in ("mean", "std")}
    device = resolve_device(given.setdefault("device", "auto"))
    given.setdefault("batch_size", GPU_BATCH if device.type == "cuda" else CPU_BATCH)
    fixed = source.canvas if source is not None and source.layout != "folder" else None  # CIFAR's
    if not fixed and trained.get("eval_size"):
        given.setdefault("size", trained["eval_size"])
    size = fixed[0] if fixed else given.get("size", 224)
    if trained.get("fixed_size", size) not in (None, size):
        side = trained["fixed_size"]
        raise InputError(f"{model} takes images of {side} px only, not {size}: give {side} as `size`.")
    kept = ("checkpoint", "checkpoint_epoch", "model", "recipe", "reg", "ls", "epochs", "dataset", "data_dir")
    facts: dict[str, Any] = {"training": {key: trained[key] for key in kept if key in trained}}
    ours = protocol(size, crop_pct)
    if trained.get("prepared", ours) != ours:  # the protocol stays; the card says so
        facts["published_with"] = str(trained["prepared"])
    saved = Path(trained["checkpoint"])
    if "out" not in given:
        own_name = saved.stem if weights is not None else str(model).replace(":", "-").replace("/", "-")
        folder = Path(runs_root) / own_name if foreign else saved.parent
        if data != trained.get("dataset", "imagenet"):  # the run's own card stays what it is
            folder /= "on-" + data.removeprefix("folder:").strip("./").replace("/", "-")
        given["out"] = folder
    defaults = {key: trained[key] for key in ("mean", "std", "classes") if trained.get(key)}
    log.info(f"evaluating {trained['checkpoint']} on {data}")
    card = evaluate(
        net,
        suites,
        source if source is not None else data,
        **{**defaults, "name": trained["model"], **given, "provenance": facts},
    )
    return card, Path(given["out"])


def _imagenet_classes(data_dir: str | Path | None) -> tuple[str, ...]:
    """The class names of the ImageNet that is here; none when it is not, and then a folder must hold all classes."""
    try:
        return open_dataset("imagenet", "val", data_dir).classes
    except InputError:
        if data_dir is not None:
            raise
        return ()
