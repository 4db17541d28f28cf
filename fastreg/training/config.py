"""Every setting of a training run, in one flat dataclass; ``config.json`` is this, resolved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.recipes import resolve
from fastreg.training.flag_aliases import translate


@dataclass
class Config:
    # what is trained on what
    dataset: str
    data_dir: str | None = None
    model: str = "resnet50"
    stem: str = "imagenet"
    blurpool: bool = False  # antialiased strided convolutions
    reg: str = "none"  # method names joined by +
    ls: float = 0.0  # label smoothing
    scope: str = "batch"  # "batch": one lambda and box per batch, as the paper; "sample": one per image
    reg_args: dict[str, Any] = field(default_factory=dict)  # a method's own parameters, such as alpha
    mixup_off_epoch: int = 0  # from this epoch on, however many there are, nothing is mixed, cut or noised; 0: never

    # schedule
    recipe: str = "auto"
    epochs: int = 300
    global_batch: int = 256  # the batch that lr belongs to; the real one is batch_size * grad_accum_steps * world
    batch_size: int | None = None  # per process and micro-batch; None: global_batch / world / grad_accum_steps
    grad_accum_steps: int = 1
    opt: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    norm_weight_decay: bool = True  # decay norm parameters and biases too, as the paper's recipes do
    sched: str = "step"
    milestones: tuple[float, ...] = (0.25, 0.5, 0.75)  # fractions of the run, for sched step
    warmup: float = 0.0  # fraction of the run, linear from a tenth of a thousandth
    clip_grad: float | None = None
    model_ema_decay: float | None = None  # keep an exponential moving average of the weights

    # pixels
    size: int = 224
    eval_size: int = 224
    min_size: int | None = None  # progressive resizing: start here ...
    size_ramp: tuple[float, ...] = (0.75, 0.875)  # ... and grow to size between these fractions of the run
    shift: int = 4  # CIFAR's pictures move by up to this at random
    color_jitter: float = 0.0  # brightness, contrast and saturation by up to this share, as the paper on ImageNet
    lighting: float = 0.0  # standard deviation of PCA lighting
    loader: str = "auto"
    workers: int | None = None
    on_bad_image: str = "error"
    order: str = "random"  # pages: a .beton file is shuffled page by page, for sets larger than memory

    # engine
    precision: str = "auto"  # auto: bf16 on sm_80 and newer, fp16 on older GPUs, fp32 on CPUs
    device: str = "auto"
    channels_last: bool = True
    torchcompile: str | None = None  # a torch.compile mode; reduce-overhead replays CUDA graphs
    sync_bn: bool = False
    deterministic: bool = False
    seed: int = 0
    recovery_interval: int = 1000  # optimiser steps between checkpoints inside an epoch
    log_interval: int = 20  # steps whose losses are fetched from the device at once
    profile: int = 0  # trace that many steps
    log_tensorboard: bool = False

    # where the run lies
    output: str = "runs"
    name: str | None = None

    def __post_init__(self) -> None:
        self.milestones, self.size_ramp = tuple(self.milestones), tuple(self.size_ramp)
        check(self)


SCHEDULES = ("step", "cosine", "linear")
CHOICES = {
    "scope": ("batch", "sample"),
    "opt": ("sgd", "adam"),
    "stem": ("imagenet", "cifar"),
    "sched": SCHEDULES,
    "precision": ("auto", "bf16", "fp16", "fp32"),
    "on_bad_image": ("error", "skip"),
    "order": ("random", "pages"),
    "torchcompile": (None, "default", "reduce-overhead", "max-autotune"),
}
# field -> (ends, lowest, highest): a round bracket leaves the end itself out
RANGES: dict[str, tuple[str, float, float]] = {
    "ls": ("[]", 0, 1),
    "lr": ("()", 0, math.inf),
    "epochs": ("[)", 1, math.inf),
    "batch_size": ("[)", 1, math.inf),
    "grad_accum_steps": ("[)", 1, math.inf),
    "momentum": ("[)", 0, 1),
    "weight_decay": ("[)", 0, math.inf),
    "milestones": ("[]", 0, 1),
    "warmup": ("[]", 0, 1),
    "clip_grad": ("()", 0, math.inf),
    "model_ema_decay": ("[)", 0, 1),
    "size": ("[]", 8, 4096),
    "eval_size": ("[]", 8, 4096),
    "min_size": ("[]", 8, 4096),
    "size_ramp": ("[]", 0, 1),
    "shift": ("[]", 0, 16),
    "color_jitter": ("[]", 0, 1),
    "lighting": ("[)", 0, math.inf),
    "mixup_off_epoch": ("[)", 0, math.inf),
    "workers": ("[]", 1, 1024),
    "seed": ("[]", 0, 2**63 - 1),
    "recovery_interval": ("[)", 1, math.inf),
    "log_interval": ("[)", 1, math.inf),
    "profile": ("[)", 0, math.inf),
}
OWN_FLAG = ("seed", "dataset", "size", "scope")  # what methods.create takes and --reg-args may not


def flag(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def check(config: Config) -> None:
    """Raise InputError for a value out of range, an unknown choice, or two settings that do not fit."""
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            raise unknown(flag(name), str(getattr(config, name)), [c for c in choices if c])
    for name in RANGES:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            check_range(name, one)
    check_reg_args(config.reg_args)
    if config.min_size is not None and config.min_size > config.size:
        raise InputError(f"--min-size {config.min_size} is larger than --size {config.size}, to which pictures grow.")
    if len(config.size_ramp) != 2 or config.size_ramp[0] > config.size_ramp[1]:
        raise InputError(f"--size-ramp must be two fractions of the run in order, but is {config.size_ramp}.")
    if config.opt == "sgd" and config.nesterov and not config.momentum:
        raise InputError("--nesterov is a kind of momentum, and --momentum is 0: give one, or --no-nesterov.")


def check_range(name: str, value: float) -> None:
    ends, low, high = RANGES[name]
    above = value > low or (ends[0] == "[" and value == low)
    below = value < high or (ends[1] == "]" and value == high)
    if not (above and below):
        least = f"{'at least' if ends[0] == '[' else 'greater than'} {low:g}"
        most = f" and {'at most' if ends[1] == ']' else 'less than'} {high:g}" if high < math.inf else ""
        raise InputError(f"{flag(name)} must be {least}{most}, but is {value:g}.")


def check_reg_args(arguments: dict[str, Any]) -> None:
    for name in arguments:
        if name in OWN_FLAG:
            other = "is the data set's name" if name == "dataset" else f"is a flag of its own: --{name}"
            raise InputError(f"--reg-args holds the method's parameters, and {name} {other}.")


def make_config(dataset: str, *, gpu: bool, world: int = 1, **overrides: Any) -> tuple[Config, list[str]]:
    """``(config, lines to print)``: a recipe's settings, overridden by whatever is not None, words of dialect.py too.

    ``gpu`` and ``world`` decide what ``auto`` means and the batch per process. An explicit batch without an explicit
    rate scales the recipe's rate linearly, and says so.
    """
    from fastreg import methods

    check_dataset(dataset)
    given = {key: value for key, value in overrides.items() if value is not None}
    recipe, line = resolve(given.get("recipe", "auto"), dataset, gpu=gpu)
    lines = [line]
    given = translate(given, max(int(given.get("epochs") or recipe["epochs"]), 1))
    base = {"dataset": dataset, "stem": "cifar" if dataset.startswith("cifar") else "imagenet", **recipe}
    reg = str(given.get("reg") or recipe.get("reg", "none"))
    check_reg_args(given.get("reg_args", {}))
    method = methods.create(reg, dataset=dataset, **given.get("reg_args", {}))
    if method.optimizer and "opt" not in given and method.optimizer != recipe.get("opt"):
        given["opt"] = method.optimizer
        lines.append(f"{method.name} is trained with {method.optimizer}, as its source does: --opt sgd overrides it")
    if given.get("opt") == "adam" and recipe.get("opt", "sgd") == "sgd":
        base["lr"] = 1e-3  # a rate for SGD means nothing to Adam
    if "size" in given and "eval_size" not in given:
        base["eval_size"] = given["size"]
    if "size" in given and base.get("min_size") and "min_size" not in given:
        base["min_size"] = 8 * max(round(base["min_size"] * given["size"] / base["size"] / 8), 1)
        lines.append(f"pictures grow from {base['min_size']} to {given['size']} px, in the recipe's proportion")
    if given.get("momentum") == 0 and "nesterov" not in given:
        base["nesterov"] = False
    return _shared(base, given, world, lines, "recipe")


def continue_config(
    dataset: str, run: Mapping[str, Any], *, gpu: bool, world: int = 1, **overrides: Any
) -> tuple[Config, list[str]]:
    """:func:`make_config` for a run that goes on: what is None is as in ``run``, its config.json.

    Another recipe brings all its settings. Where neither ``batch_size`` nor ``grad_accum_steps`` is given, the
    processes share the run's global batch in its own micro-batches, or in smaller ones where that does not go.
    """
    check_dataset(dataset)
    base = {name: value for name, value in run.items() if name in Config.__dataclass_fields__}
    if base.get("dataset") != dataset:
        raise InputError(f"--resume: that run trains on {base.get('dataset')}, not on {dataset}: name its data set.")
    base = to_dict(Config(**base))
    given = {key: value for key, value in overrides.items() if value is not None}
    lines = ["settings: those of the run that goes on"]
    if given.get("recipe", base["recipe"]) != base["recipe"]:
        recipe, line = resolve(given["recipe"], dataset, gpu=gpu)
        base |= recipe
        lines.append(line)
    elif not given.keys() & {"batch_size", "grad_accum_steps"}:
        share = base["global_batch"] // world
        least = max(math.ceil(share / base["batch_size"]), 1)
        base["grad_accum_steps"] = next((k for k in range(least, share + 1) if share % k == 0), 1)
    given = translate(given, max(int(given.get("epochs") or base["epochs"]), 1))
    return _shared({**base, "batch_size": None}, given, world, lines, "run")


def check_dataset(name: str) -> None:
    """Raise InputError for a name that is no data set, or none to train on."""
    from fastreg.pipelines import DATASETS

    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    if name == "svhn":
        raise InputError("svhn is the out-of-distribution set of ood_svhn: train on imagenet, cifar100 or cifar10.")


def _shared(
    base: dict[str, Any], given: dict[str, Any], world: int, lines: list[str], whose: str
) -> tuple[Config, list[str]]:
    """``base`` (a recipe's settings or a run's: ``whose``) under what is given, and the batch of each process."""
    config = Config(**{**base, **given})
    share = world * config.grad_accum_steps
    if config.batch_size is None:
        if config.global_batch % share:
            raise InputError(
                f"the {whose}'s batch of {config.global_batch} does not divide by {world} processes x "
                f"{config.grad_accum_steps} accumulation steps: give --batch-size."
            )
        config.batch_size = config.global_batch // share
    real = config.batch_size * share
    if real != config.global_batch:
        if "lr" not in given:
            config.lr *= real / config.global_batch
            lines.append(
                f"learning rate {config.lr:g}: the {whose}'s, scaled from batch {config.global_batch} to {real}"
            )
        config.global_batch = real
    changed = {k: v for k, v in given.items() if k in base and base[k] != v and k not in ("dataset", "recipe")}
    if changed:
        lines.append("flags override: " + ", ".join(f"{k} {v}" for k, v in changed.items()))
    return config, lines


def to_dict(config: Config) -> dict[str, Any]:
    return dataclasses.asdict(config)
