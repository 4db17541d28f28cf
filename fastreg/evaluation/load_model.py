"""Where the model of an evaluation comes from: a run, a checkpoint, or a state dict of someone else's."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from fastreg import runs
from fastreg.errors import InputError, RunError
from fastreg.models import create_model


class Prepared(NamedTuple):
    """How an image is made ready: its shorter side resized to ``resize`` pixels, the centre of ``size`` cut out."""

    resize: int
    size: int
    interpolation: str

    def __str__(self) -> str:
        return f"Resize {self.resize}, CenterCrop {self.size}, {self.interpolation}"


def protocol(size: int, crop_pct: float) -> Prepared:
    """What evaluation does with images of any size; at 224/256 as the paper and torchvision's first weights."""
    return Prepared(round(size / crop_pct), size, "bilinear")


def load_classifier(
    checkpoint: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    model: str | None = None,
    num_classes: int | None = None,
    stem: str = "imagenet",
    runs_root: str | Path = "runs",
) -> tuple[nn.Module, dict[str, Any]]:
    """``(model in eval mode on the CPU, its config)``.

    ``checkpoint``: a run folder or .pt file of fastreg; None without ``weights`` means the newest run's. ``weights``: a
    plain state-dict file for the architecture ``model`` with ``num_classes`` outputs and this ``stem``; without it, a
    ``model`` of timm's or torchvision's has the ImageNet weights that its package publishes. Raises InputError when a
    file is not what it should be, does not fit the architecture, or has another number of classes, RunError when
    weights cannot be downloaded.
    """
    if checkpoint is None and weights is None and is_published(model):
        assert model is not None
        return _published(model)
    if weights is None:
        if model:
            raise InputError(
                f"--model {model} needs --weights FILE; a fastreg checkpoint knows its own architecture, and "
                f"timm:NAME and torchvision:NAME alone have published weights."
            )
        if checkpoint is None:
            checkpoint = runs.newest(runs_root)
        return load_run(checkpoint)
    if checkpoint is not None:
        raise InputError(f"both a checkpoint ({checkpoint}) and --weights {weights} were given: choose one.")
    if not model:
        raise InputError(f"--weights {weights} needs --model NAME, the architecture these weights belong to.")
    net = create_model(model, num_classes or 1000, stem=stem)
    _fill(net, _state_dict(weights), weights, model)
    config = {"model": model, "num_classes": num_classes or 1000, "checkpoint": str(weights)}
    pretrained = getattr(net, "pretrained_cfg", None) or {}  # timm's models say how they are normalised
    return net.eval(), config | {key: list(pretrained[key]) for key in ("mean", "std") if key in pretrained}


def load_run(path: Path | str) -> tuple[Any, dict[str, Any]]:
    """``(model in eval mode on the CPU, the run's config)`` from a run folder or a checkpoint file."""
    path = runs.checkpoint_path(path)
    state = runs.load_checkpoint(path)
    config = state["config"]
    if "model" not in state or "num_classes" not in config:
        raise InputError(f"{path} holds no classifier (a GAN's generator?): name a run of `fastreg train imagenet`.")
    model = create_model(config["model"], config["num_classes"], stem=config["stem"], **config["model_args"])
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the model its own config names ({config['model']}).") from error
    return model.eval(), {**config, "checkpoint": str(path), "checkpoint_epoch": state.get("epoch")}


def is_published(model: str | None) -> bool:
    """Whether a name is one of timm's or torchvision's, which have weights of their own."""
    return model is not None and model.startswith(("timm:", "torchvision:"))


def _published(model: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model with the weights that its package publishes for ImageNet's 1000 classes, its normalisation, and how its
    images were prepared when they were published."""
    package, _, name = model.partition(":")
    try:
        if package == "timm":
            net = create_model(model, 1000, pretrained=True)
            own: Any = net.pretrained_cfg
            chosen = {key: own[key] for key in ("mean", "std")}
            side = own["input_size"][-1]
            prepared = Prepared(int(side / own.get("crop_pct", 0.875)), side, own.get("interpolation", "bilinear"))
            fixed = side if own.get("fixed_input_size") else None
        else:
            net = create_model(model, 1000)
            weights = importlib.import_module("torchvision.models").get_model_weights(name).DEFAULT
            net.load_state_dict(weights.get_state_dict(progress=False, check_hash=True))
            own = weights.transforms()
            chosen = {key: getattr(own, key) for key in ("mean", "std")}
            prepared = Prepared(own.resize_size[0], own.crop_size[0], own.interpolation.value)
            fixed = getattr(net, "image_size", None)  # of vision transformers
    except InputError:
        raise
    except Exception as error:  # whatever a download or a model without weights raises
        why = (str(error).splitlines() or [""])[0]
        raise RunError(
            f"the published weights of {model} cannot be had ({type(error).__name__}: {why}): "
            f"give the file with --weights."
        ) from error
    config: dict[str, Any] = {"model": model, "num_classes": 1000, "checkpoint": model}
    config |= {"prepared": prepared, "fixed_size": fixed}
    return net.eval(), config | {key: list(value) for key, value in chosen.items()}


def _state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by parameter name, unwrapped from what training scripts put around them."""
    state = runs.load_tensors(path)
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path} is not a state dict (names to tensors): save it with torch.save(model.state_dict()).")
    return {name.removeprefix("module.").removeprefix("_orig_mod."): value for name, value in state.items()}


def _fill(net: nn.Module, state: dict[str, Tensor], path: str | Path, model: str) -> None:
    own = net.state_dict()
    shared = [name for name in own if name in state]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    strange = [name for name in state if name not in own]
    if missing or strange:
        example = f"{missing[0]} is missing" if missing else f"{strange[0]} is unknown"
        raise InputError(
            f"{path} does not fit {model}: {len(missing)} of its tensors are missing and {len(strange)} are unknown "
            f"(for example, {example}); give the --model these weights were trained with."
        )
    other = [name for name in shared if own[name].shape != state[name].shape]
    last = list(own)[-1].rpartition(".")[0]
    if other and all(name.startswith(last + ".") for name in other):
        raise InputError(
            f"{path} has {len(state[other[0]])} classes but the data has {len(own[other[0]])}: "
            f"evaluate it on the set it was trained for."
        )
    if other:
        found, needed = list(state[other[0]].shape), list(own[other[0]].shape)
        raise InputError(
            f"{path} does not fit {model}: {other[0]} is {found}, not {needed}; "
            f"give the --model these weights were trained with."
        )
    net.load_state_dict(state, strict=False)
