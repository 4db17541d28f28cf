"""Models with published weights: of timm and torchvision for ImageNet's 1000 classes, and RobustBench's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fastreg.errors import InputError, RunError, extra, unknown
from fastreg.evaluation.config import CROP_PCT, INTERPOLATION, EvalConfig
from fastreg.models import create_model, import_package, import_robustbench
from fastreg.models.robustbench import find_entry, load_robustbench
from fastreg.pipelines.loader_table import INTERPOLATIONS

CLASSES = 1000


class Prepared(NamedTuple):
    """Preparation of images: a resize of the shorter side to ``resize`` pixels, then a center crop of ``size``."""

    resize: int
    size: int
    interpolation: str

    def __str__(self) -> str:
        return f"Resize {self.resize}, CenterCrop {self.size}, {self.interpolation}"

    @property
    def options(self) -> dict[str, Any]:
        """The options of an evaluation with this preparation."""
        return {"size": self.size, "crop_pct": self.size / self.resize, "interpolation": self.interpolation}


def protocol(size: int, crop_pct: float, interpolation: str = INTERPOLATION) -> Prepared:
    """The preparation of an evaluation; at 224/256 that of the paper and of torchvision's first weights."""
    return Prepared(round(size / crop_pct), size, interpolation)


def preparation_facts(published: Prepared | None, size: int, config: EvalConfig) -> dict[str, str]:
    """The facts of a card about the preparation of images, if published weights had another one than the paper's."""
    paper, ours = protocol(size, CROP_PCT), protocol(size, config.crop_pct, config.interpolation)
    if published is None or published == ours == paper:
        return {}
    if published == ours:
        return {"published_with": str(published), "protocol": "published"}
    return {"published_with": str(published)} | ({"measured_with": str(ours)} if ours != paper else {})


def published_options(trained: dict[str, Any]) -> dict[str, Any]:
    """The options of an evaluation with the preparation of published weights. Raises InputError if it lacks one."""
    own: Prepared | None = trained.get("prepared")
    crop_mode = trained.get("crop_mode", "center")
    if own is None or crop_mode != "center" or own.interpolation not in INTERPOLATIONS:
        what = f"with {own}, crop mode {crop_mode}" if own else "without a known preparation of images"
        raise InputError(
            f"{trained['model']} is published {what}, which `protocol` published cannot reproduce: leave it out."
        )
    return own.options


def is_published(model: str | None) -> bool:
    """Whether a name is one of timm's, torchvision's or RobustBench's, which publish weights."""
    return model is not None and model.startswith(("timm:", "torchvision:", "robustbench:"))


def load_published(model: str, num_classes: int | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A model with its published weights.

    Args:
        model: ``timm:NAME[.TAG]``, ``torchvision:NAME`` or ``robustbench:NAME``.
        num_classes: the classes of RobustBench's data set.

    Returns:
        ``(model in eval mode, its config)``. The config has mean and std (both None if the model takes pixels),
        ``prepared`` (the preparation of images with which the weights were published) and ``fixed_size`` (the only size
        that the model takes, None for any).

    Raises:
        InputError: an unknown name, or weights whose head is not ImageNet's 1000 classes.
        RunError: the weights cannot be downloaded.
    """
    package, _, name = model.partition(":")
    if package == "robustbench":
        robustbench = import_robustbench(name)
        net, entry = downloaded(model, lambda: load_robustbench(robustbench, name, num_classes))
        known = {"model": entry.full_name, "num_classes": entry.num_classes, "dataset": entry.dataset}
        return net.eval(), {**known, "checkpoint": entry.full_name, "mean": None, "std": None}
    net, config = _timm(name, model) if package == "timm" else _torchvision(name, model)
    return net.eval(), {"model": model, "num_classes": CLASSES, "checkpoint": model, **config}


def _timm(name: str, model: str) -> tuple[nn.Module, dict[str, Any]]:
    timm = import_package("timm", f"model {model}", extra("timm"))
    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that the architecture does not have
        published = None
    if published is not None:  # else create_model names what is known
        if not published.has_weights:
            raise InputError(f"{model} has no published weights: give a file as `weights`.")
        _check_head(model, published.num_classes)
    net = downloaded(model, lambda: create_model(model, CLASSES, pretrained=True))
    own: Any = net.pretrained_cfg
    side = own["input_size"][-1]
    prepared = Prepared(int(side / own.get("crop_pct", 0.875)), side, own.get("interpolation", "bilinear"))
    fixed = side if own.get("fixed_input_size") else None
    found = {"mean": list(own["mean"]), "std": list(own["std"]), "prepared": prepared, "fixed_size": fixed}
    return net, {**found, "crop_mode": own.get("crop_mode") or "center"}


def _torchvision(name: str, model: str) -> tuple[nn.Module, dict[str, Any]]:
    models = import_package("torchvision", f"model {model}", extra("peers")).models
    if name not in models.list_models():
        raise unknown("torchvision model", name, models.list_models())
    weights = models.get_model_weights(name).DEFAULT
    _check_head(model, len(weights.meta.get("categories") or ()))
    # their builder also sets what these weights need: GoogLeNet and Inception transform their input
    net = downloaded(model, lambda: models.get_model(name, weights=weights, progress=False))
    own = weights.transforms()
    prepared = Prepared(own.resize_size[0], own.crop_size[0], own.interpolation.value)
    fixed = getattr(net, "image_size", None)  # of vision transformers
    return net, {"mean": list(own.mean), "std": list(own.std), "prepared": prepared, "fixed_size": fixed}


def _check_head(model: str, classes: int) -> None:
    if classes != CLASSES:
        head = f"a head of {classes:,} outputs" if classes else "no classification head"
        raise InputError(
            f"the published weights of {model} have {head}, not ImageNet's {CLASSES} classes: name weights that were "
            f"trained or fine-tuned on ImageNet-1k."
        )


def downloaded(model: str, make: Callable[[], Any], parameter: str = "weights") -> Any:
    """What ``make`` returns, which may download the weights of ``model``.

    Raises:
        RunError: the download fails. The message offers a file as ``parameter``.
    """
    try:
        return make()
    except InputError:
        raise
    except Exception as error:  # a download may raise anything
        why = (str(error).splitlines() or [""])[0]
        raise RunError(
            f"the published weights of {model} cannot be downloaded ({type(error).__name__}: {why}): "
            f"give the file as `{parameter}`."
        ) from error


def robustbench_data(model: str | None) -> str:
    """The data set of ``robustbench:NAME``. Raises InputError if several have the name."""
    name = str(model).partition(":")[2]
    return find_entry(import_robustbench(name).model_zoo, name).dataset


def transforms_input(model: str, path: str | Path) -> bool:
    """Whether a file of weights of ``torchvision:NAME`` is the published one and needs ``transform_input``.

    torchvision's GoogLeNet and Inception v3 have weights of another framework, which expect other means; models trained
    with torchvision do not. The published file is recognized by the digest in its name.
    """
    package, _, name = model.partition(":")
    if package != "torchvision":
        return False
    models = import_package("torchvision", f"model {model}", extra("peers")).models
    published = Path(models.get_model_weights(name).DEFAULT.url).stem.rpartition("-")[2]
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(published)
