"""``fastreg eval``: find the model and its data, evaluate, and leave the scorecard in the run's folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from fastreg.errors import InputError
from fastreg.evaluation.engine import evaluate
from fastreg.evaluation.load_model import is_published, load_classifier, protocol
from fastreg.evaluation.pixel_cache import CROP_PCT
from fastreg.evaluation.scorecard import Scorecard
from fastreg.evaluation.suites import resolve
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
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    size: int | None = None,
    crop_pct: float = CROP_PCT,
    out: str | Path | None = None,
    runs_root: str | Path = "runs",
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> tuple[Scorecard, Path]:
    """Evaluate a checkpoint (None: the newest run's best), ``weights`` of architecture ``model``, or the published ones
    of ``timm:NAME`` or ``torchvision:NAME``.

    ``data``: a data set's name, or ``folder:DIR`` for another folder of images with the model's classes; by default
    the one the checkpoint was trained on. Foreign weights on a folder are taken to have ImageNet's classes, whose names
    come from the ImageNet at ``data_dir`` (or where it is usually found). ``out``: default the run's folder, for
    foreign weights ``runs/<file name>`` or ``runs/<model>``; in all ``on-<data>`` below it when that is not the data
    trained on. ``options`` go to :func:`fastreg.evaluation.evaluate`, ``say`` is told which model
    it is. Returns the card and the folder that holds
    scorecard.json.
    """
    resolve(suites, 0)  # a wrong name is said before anything is read
    source: Any = None
    net = None
    foreign = weights is not None or (checkpoint is None and is_published(model))
    if not foreign:
        net, config = load_classifier(checkpoint, model=model, runs_root=runs_root)
        data = data or config["dataset"]
        if data_dir is None and data == config["dataset"]:
            data_dir = config.get("data_dir")
    data = data or "imagenet"
    if not data.startswith("folder:"):
        source = open_dataset(data, "val", data_dir)
    if net is None:
        names = source.classes if source is not None else _imagenet_classes(data_dir)
        stem = "cifar" if data.startswith("cifar") else "imagenet"
        net, config = load_classifier(
            checkpoint, weights=weights, model=model, num_classes=len(names) or 1000, stem=stem
        )
        config["classes"] = names
        if weights is None and len(names) not in (0, config["num_classes"]):
            raise InputError(
                f"{model} knows ImageNet's 1000 classes but the data has {len(names)}: evaluate it on the set it was "
                f"trained for, or on a folder of some of its classes with --data folder:DIR."
            )
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    gpu = where.startswith("cuda")
    if precision == "auto":
        precision = "bf16" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    saved = Path(config["checkpoint"])
    own_name = saved.stem if weights is not None else str(model).replace(":", "-").replace("/", "-")
    folder = Path(out) if out else (Path(runs_root) / own_name if foreign else saved.parent)
    if out is None and data != config.get("dataset", "imagenet"):  # the run's own card stays what it is
        folder /= "on-" + data.removeprefix("folder:").strip("./").replace("/", "-")
    own = {key: config[key] for key in ("mean", "std", "classes") if config.get(key)}
    kept = ("checkpoint", "checkpoint_epoch", "model", "recipe", "reg", "ls", "epochs", "dataset", "data_dir")
    fixed = source.canvas if source is not None and source.layout != "folder" else None  # CIFAR's
    if size is None and not fixed:
        size = config.get("eval_size")
    from_where: dict[str, Any] = {"training": {key: config[key] for key in kept if key in config}}
    pixels = fixed[0] if fixed else size or 224
    if config.get("fixed_size", pixels) not in (None, pixels):
        raise InputError(
            f"{model} takes images of {config['fixed_size']} px only, not {pixels}: give --size {config['fixed_size']}."
        )
    ours = protocol(pixels, crop_pct)
    if config.get("prepared", ours) != ours:  # the protocol stays; the reader is told
        from_where["published_with"] = str(config["prepared"])
    if say is not None and os.environ.get("RANK", "0") == "0":
        say(f"evaluating {config['checkpoint']} on {data}")
    card = evaluate(
        net,
        suites,
        source if source is not None else data,
        device=where,
        precision=precision,
        batch_size=(GPU_BATCH if gpu else CPU_BATCH) if batch_size is None else batch_size,
        size=size,
        crop_pct=crop_pct,
        out=folder,
        name=config["model"],
        provenance=from_where,
        **{**own, **options},
    )
    return card, folder


def _imagenet_classes(data_dir: str | Path | None) -> tuple[str, ...]:
    """The class names of the ImageNet that is here; none when it is not, and then a folder must hold all classes."""
    try:
        return open_dataset("imagenet", "val", data_dir).classes
    except InputError:
        if data_dir is not None:
            raise
        return ()
