"""The model of an evaluation: of a run, a checkpoint, a file of weights, published weights, or the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from fastreg import runs
from fastreg.errors import InputError
from fastreg.evaluation.published_weights import is_published, load_published, transforms_input
from fastreg.evaluation.weights_file import WrongClasses, fill
from fastreg.models import check_arguments, create_model
from fastreg.models.own import build_own, confirm_own, is_own


def load_classifier(
    checkpoint: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    model: str | None = None,
    num_classes: int | None = None,
    stem: str = "imagenet",
    runs_root: str | Path = "runs",
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a classifier for evaluation.

    Args:
        checkpoint: a run folder or .pt file of fastreg; None without ``weights``: the newest run's best.
        weights: a file of weights (``torch.save`` of a state dict, also inside a training script's checkpoint;
            safetensors) of the architecture ``model``.
        weights_key: the dict or prefix of the weights in that file, if it has several.
        model: the architecture; without ``weights``, ``timm:NAME`` or ``torchvision:NAME`` with the ImageNet weights
            that the package publishes, ``robustbench:NAME`` with RobustBench's, or ``package.module:function``: what
            the user's own function returns. A run of an own model needs its name too.
        num_classes: outputs of ``model``; default: as many as the file of ``weights`` has. It is passed to an own
            function that takes it, and selects RobustBench's data set.
        stem: first layers of a ResNet: "imagenet" or "cifar".
        runs_root: folder of run folders.

    Returns:
        ``(model in eval mode on the CPU, its config)``; ``mean`` and ``std`` in the config are None if the model takes
        pixels in [0, 1], and ``num_classes`` is None if an own function was called without it.

    Raises:
        InputError: a file that is no checkpoint or no weights, does not fit the architecture or has another number of
            classes; published weights for other classes than ImageNet's.
        RunError: weights that cannot be downloaded.
    """
    if weights is None:
        if weights_key is not None:
            raise InputError("`weights_key` is for a file of `weights`: give one, or leave it out.")
        if checkpoint is None and is_published(model):
            assert model is not None
            return load_published(model, num_classes)
        if checkpoint is None and is_own(model):
            assert model is not None
            net = build_own(model, num_classes, {})
            return net.eval(), {"model": model, "num_classes": num_classes, "checkpoint": model, **_statistics(net)}
        if model and not is_own(model):
            raise InputError(
                f"`model` {model} needs `weights`; a fastreg checkpoint knows its own architecture, and timm:NAME, "
                f"torchvision:NAME and robustbench:NAME alone have published weights."
            )
        return load_run(runs.newest(runs_root) if checkpoint is None else checkpoint, own=model)
    check_architecture(weights, checkpoint, model)
    assert model is not None
    classes = num_classes or 1000
    net = create_model(model, classes, stem=stem)
    try:
        key, others = fill(net, weights, model, weights_key)
    except WrongClasses as error:
        if num_classes is not None:
            raise
        classes = error.found
        net = create_model(model, classes, stem=stem)
        key, others = fill(net, weights, model, weights_key)
    if hasattr(net, "transform_input"):
        net.transform_input = transforms_input(model, weights)  # type: ignore[assignment]
    config: dict[str, Any] = {"model": model, "num_classes": classes, "checkpoint": str(weights)}
    if key:
        config["weights_key"] = key
    if others:
        config["weights_note"] = f"{key or 'those at the top'} of the file, which also has {', '.join(others)}"
    return net.eval(), config | _statistics(net)


def check_architecture(weights: Path | str, checkpoint: Path | str | None, model: str | None) -> None:
    """Raise InputError for a file of weights beside a checkpoint, or without the model that it belongs to."""
    if checkpoint is not None:
        raise InputError(f"both a checkpoint ({checkpoint}) and `weights` {weights} were given: choose one.")
    if not model:
        raise InputError(
            f"`weights` {weights} needs `model`, the architecture that these weights belong to; a fastreg checkpoint "
            f"needs neither: `fastreg eval {weights}`{'' if Path(weights).is_file() else f' ({weights} is no file)'}."
        )


def _statistics(net: nn.Module) -> dict[str, Any]:
    """The normalization and fixed size that timm's models hold."""
    pretrained = getattr(net, "pretrained_cfg", None) or {}
    fixed = pretrained["input_size"][-1] if pretrained.get("fixed_input_size") else None
    return {"fixed_size": fixed} | {name: list(pretrained[name]) for name in ("mean", "std") if name in pretrained}


def load_run(path: Path | str, average: bool = False, own: str | None = None) -> tuple[Any, dict[str, Any]]:
    """``(model in eval mode on the CPU, the run's config)`` from a run folder or a checkpoint file.

    ``average`` takes the averaged weights of last.pt, and raises InputError if the run has none. ``own`` is the name of
    the user's own model, which is not taken from the file.
    """
    path = runs.checkpoint_path(path)
    state = runs.load_checkpoint(path)
    config = state["config"]
    if "model" not in state or "num_classes" not in config:
        raise InputError(f"{path} holds no classifier (a GAN's generator?): name a run of `fastreg train imagenet`.")
    if is_own(config["model"]):
        confirm_own(config["model"], own, str(path))
    elif own:
        raise InputError(f"{path} is a checkpoint of {config['model']}, not of `model` {own}: leave that out.")
    name = own or config["model"]
    check_arguments(name, config["model_args"], f"model_args of {path}")
    model = create_model(name, config["num_classes"], stem=config["stem"], **config["model_args"])
    if average and not state.get("ema"):
        raise InputError(f"{path} has no averaged weights: its run kept no average, or it is a best.pt.")
    try:
        model.load_state_dict(state["ema" if average else "model"])
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the model its own config names ({config['model']}).") from error
    epoch = state["epoch"] + 1 if "epoch" in state else None  # counted from 1
    return model.eval(), {**config, "checkpoint": str(path), "checkpoint_epoch": epoch}
