"""The settings of a training run: one flat dataclass, written as ``config.json``."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.faithful import original_recipe, original_settings
from fastreg.models.own import confirm_own, is_own
from fastreg.pipelines.class_map import ORDERS
from fastreg.pipelines.loader_table import INTERPOLATIONS
from fastreg.recipes import resolve
from fastreg.runs import stored_data_dir
from fastreg.training.flag_aliases import translate


@dataclass
class Config:
    """All settings of a training run, described beside each field; :func:`make_config` takes them from a recipe.

    Raises:
        InputError: a value is out of range or unknown, or two settings contradict each other.
    """

    # data, model and method
    dataset: str  # name of a data set, or "folder"
    data_dir: str | None = None  # its folder; None: $FASTREG_DATA/<dataset>, else data/<dataset>
    train_split: str | None = None  # name of the training split in the names of folders and shards
    val_split: str | None = None  # the same of the validation split
    val_share: float | None = None  # share of the images to validate on, for a set without a validation split
    image_key: str | None = None  # shards: extension or column of the image; None: the usual ones
    label_key: str | None = None  # shards: extension, JSON field or column of the label
    class_map: str | None = None  # numbers of the classes: "timm", "torchvision", or a file of names and outputs
    cache_dir: str | None = None  # copies of remote files; None: $FASTREG_CACHE, else the user's cache folder
    cache_gb: float | None = None  # its limit in GB; None: $FASTREG_CACHE_GB, else 100
    channels: int = 3  # channels that the model takes; 1: the gray value of each pixel
    model: str = "resnet50"  # a name of fastreg.models, timm:NAME, torchvision:NAME, package.module:function
    stem: str = "imagenet"  # first layers of a ResNet: "imagenet" or "cifar"
    blurpool: bool = False  # antialiased strided convolutions
    model_kwargs: dict[str, Any] = field(default_factory=dict)  # further arguments, such as drop_path_rate of timm's
    pretrained: bool = False  # start from the weights that timm or torchvision publishes
    initial_checkpoint: str | None = None  # start from the weights of this file or run folder
    weights_key: str | None = None  # the dict or prefix of the weights in that file, if it has several
    freeze: tuple[str, ...] = ()  # names of parameters or modules that are not trained, with * and ?; or re:REGEX
    reg: str = "none"  # method names joined by +
    ls: float = 0.0  # label smoothing
    bce_loss: bool = False  # binary cross-entropy, a sigmoid per class, in place of cross-entropy
    bce_target_threshold: float | None = None  # targets above it become 1, the others 0; None: as they are
    bce_sum: bool = False  # sum of the binary cross-entropy over the classes, in place of the mean
    class_weight: str | dict[str, float] | None = None  # "balanced", or weights by name of the class; others: 1
    scope: str = "batch"  # "batch": one lambda and box per batch, as the paper; "sample": one per image
    reg_args: dict[str, Any] = field(default_factory=dict)  # a method's own parameters, such as alpha
    mixup_off_epoch: int = 0  # no mixing, cutting or noise from this epoch on, counted from 0; 0: until the end

    # schedule
    recipe: str = "auto"  # the recipe that the settings come from
    epochs: int = 300  # passes over the training set
    global_batch: int = 256  # images per step: batch_size * grad_accum_steps * world size; lr is for this batch
    batch_size: int | None = None  # per rank and micro-batch; None: global_batch / world size / grad_accum_steps
    grad_accum_steps: int = 1  # micro-batches per step
    opt: str = "sgd"  # "sgd", "adam", "adamw", or timm:NAME for an optimizer of timm
    lr: float = 0.1  # peak learning rate, for global_batch
    momentum: float = 0.9  # of SGD, and of timm's optimizers with momentum
    nesterov: bool = True  # Nesterov momentum of SGD
    opt_eps: float | None = None  # term in the denominator of Adam and others; None: the optimizer's own
    opt_betas: tuple[float, ...] = ()  # decays of the averages of Adam and others; (): the optimizer's own
    weight_decay: float = 1e-4  # L2 penalty of the weights
    norm_weight_decay: bool = True  # weight decay for norm parameters and biases too, as in the paper's recipes
    layer_decay: float | None = None  # learning rate of a layer relative to the next one's; None: one rate
    sched: str = "step"  # "step", "cosine", "linear", "poly" or "constant"
    milestones: tuple[float, ...] = (0.25, 0.5, 0.75)  # fractions of the run at which sched "step" lowers lr
    decay_rate: float = 0.1  # factor of lr at a milestone of sched "step"; the power of sched "poly"
    min_lr: float = 0.0  # learning rate at the end of sched "cosine", "linear" or "poly"
    warmup: float = 0.0  # fraction of the run in which lr rises linearly
    warmup_lr: float | None = None  # learning rate at the start of the warm-up; None: lr / 10,000
    warmup_overlap: bool = False  # the schedule begins with the warm-up, as in timm, not after it
    cooldown: float = 0.0  # fraction of the run, at its end, at min_lr
    clip_grad: float | None = None  # largest L2 norm of the gradient of all weights; None: no clipping
    model_ema_decay: float | None = None  # keep an exponential moving average of the weights
    model_ema_warmup: bool = False  # raise the decay from 0.1: min(decay, (1 + step) / (10 + step))
    model_ema_every: int = 1  # steps between two updates of the average

    # pixels
    size: int = 224  # side of training images in pixels
    eval_size: int = 224  # side of validation images in pixels
    crop_pct: float = 0.875  # eval_size divided by the side to which validation images are resized
    interpolation: str = "bilinear"  # of that resize: "bilinear", "bicubic", "lanczos" or "nearest"
    min_size: int | None = None  # progressive resizing: side of training images at the start; None: size
    size_ramp: tuple[float, ...] = (0.75, 0.875)  # fractions of the run between which images grow to size
    shift: int = 4  # largest random shift of CIFAR images in pixels
    color_jitter: float = 0.0  # largest change of brightness, contrast and saturation; the paper on ImageNet: 0.4
    lighting: float = 0.0  # standard deviation of PCA lighting on the 0-1 scale; the paper on ImageNet: 0.1
    loader: str = "auto"  # a name of fastreg.pipelines.LOADERS; auto: by data set and device
    workers: int | None = None  # decoding threads per rank; None: the rank's share of the CPU cores
    color_clip: bool = True  # clip and round jittered colors to bytes; off: float pixels, as in the original code
    on_bad_image: str = "error"  # "skip": train without images that cannot be decoded
    drop_last: bool = True  # leave the last, partial batch of an epoch out; off: train it, as in the original code
    order: str = "random"  # "pages": shuffle a .beton file page by page, for data sets larger than memory
    aug_repeats: int = 1  # repeated augmentation: occurrences of each image in an epoch, which keeps its length
    sampler: str = "random"  # "balanced": the same share of an epoch for every class

    # execution
    precision: str = "auto"  # auto: bf16 on sm_80 and newer, fp16 on older GPUs, fp32 on CPUs
    device: str = "auto"  # "auto", "cpu", "cuda" or "cuda:1"
    tf32: bool = True  # with precision fp32 on a GPU: products in TF32
    channels_last: bool = True  # memory layout NHWC
    torchcompile: str | None = "auto"  # mode of torch.compile; "auto": compiling.py; "off" or None: no compilation
    sync_bn: bool = False  # batch norm over all ranks
    deterministic: bool = False  # bitwise repeatable on a GPU too
    best_of_ties: str = "first"  # of epochs with the lowest error: "first", or "last" as in CutMix's code
    seed: int = 0  # key of every random draw
    recovery_interval: int = 1000  # steps between checkpoints inside an epoch
    log_interval: int = 20  # steps whose losses are copied from the device at once
    profile: int = 0  # number of steps to trace
    log_tensorboard: bool = False  # write scalars for TensorBoard too
    log_wandb: bool = False  # send scalars to Weights & Biases too

    # run folder
    output: str = "runs"  # parent of the run folder
    name: str | None = None  # None: data set, model and method, with a number if the folder is taken

    def __post_init__(self) -> None:
        for name in TUPLES:
            setattr(self, name, tuple(getattr(self, name)))
        if self.class_map is not None and self.class_map not in ORDERS:
            self.class_map = os.path.abspath(self.class_map)  # for a resume or an evaluation from another folder
        check(self)


TUPLES = ("milestones", "size_ramp", "opt_betas", "freeze")  # lists in a file
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("step", "cosine", "linear", "poly", "constant")
CHOICES: dict[str, tuple[str | int | None, ...]] = {
    "scope": ("batch", "sample"),
    "stem": ("imagenet", "cifar"),
    "interpolation": INTERPOLATIONS,
    "sched": SCHEDULES,
    "precision": ("auto", "bf16", "fp16", "fp32"),
    "on_bad_image": ("error", "skip"),
    "order": ("random", "pages"),
    "best_of_ties": ("first", "last"),
    "sampler": ("random", "balanced"),
    "channels": (1, 3),
    "torchcompile": ("auto", "off", None, "default", "reduce-overhead", "max-autotune"),
}
# field -> (brackets, lowest, highest): a round bracket excludes the bound
RANGES: dict[str, tuple[str, float, float]] = {
    "ls": ("[]", 0, 1),
    "bce_target_threshold": ("[]", 0, 1),
    "lr": ("()", 0, math.inf),
    "epochs": ("[)", 1, math.inf),
    "batch_size": ("[)", 1, math.inf),
    "grad_accum_steps": ("[)", 1, math.inf),
    "momentum": ("[)", 0, 1),
    "weight_decay": ("[)", 0, math.inf),
    "opt_eps": ("()", 0, math.inf),
    "opt_betas": ("[)", 0, 1),
    "layer_decay": ("(]", 0, 1),
    "milestones": ("[]", 0, 1),
    "decay_rate": ("()", 0, math.inf),
    "min_lr": ("[)", 0, math.inf),
    "warmup": ("[]", 0, 1),
    "warmup_lr": ("[)", 0, math.inf),
    "cooldown": ("[)", 0, 1),
    "clip_grad": ("()", 0, math.inf),
    "model_ema_decay": ("[)", 0, 1),
    "model_ema_every": ("[)", 1, math.inf),
    "size": ("[]", 8, 4096),
    "eval_size": ("[]", 8, 4096),
    "crop_pct": ("(]", 0, 1),
    "min_size": ("[]", 8, 4096),
    "size_ramp": ("[]", 0, 1),
    "shift": ("[]", 0, 16),
    "aug_repeats": ("[]", 1, 1000),
    "color_jitter": ("[]", 0, 1),
    "lighting": ("[)", 0, math.inf),
    "mixup_off_epoch": ("[)", 0, math.inf),
    "val_share": ("()", 0, 1),
    "cache_gb": ("()", 0, math.inf),
    "workers": ("[]", 1, 1024),
    "seed": ("[]", 0, 2**63 - 1),
    "recovery_interval": ("[)", 1, math.inf),
    "log_interval": ("[)", 1, math.inf),
    "profile": ("[)", 0, math.inf),
}
# settings that runs of earlier versions do not have: they were trained with the defaults
ADDED = {
    "crop_pct",
    "interpolation",
    "model_ema_warmup",
    "model_ema_every",
    "log_wandb",
    "opt_eps",
    "opt_betas",
    "layer_decay",
    "decay_rate",
    "min_lr",
    "warmup_lr",
}
ADDED |= {
    "color_clip",
    "drop_last",
    "tf32",
    "best_of_ties",
    "aug_repeats",
    "sampler",
    "val_share",
    "class_map",
    "channels",
    "warmup_overlap",
    "cooldown",
    "model_kwargs",
    "pretrained",
    "initial_checkpoint",
    "weights_key",
    "freeze",
}
ADDED |= {"bce_loss", "bce_target_threshold", "bce_sum", "class_weight"}
COMMON = ("seed", "dataset", "size", "scope")  # parameters of methods.create that are settings themselves


def check(config: Config) -> None:
    """Check values, choices and combinations of settings.

    Raises:
        InputError: the message names the setting.
    """
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            raise unknown(f"`{name}`", str(getattr(config, name)), [str(choice) for choice in choices if choice])
    for name in RANGES:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            check_range(name, one)
    check_reg_args(config.reg_args)
    if config.name is not None and (not config.name or config.name in (".", "..") or "/" in config.name):
        raise InputError(f"`name` is {config.name!r}: give the name of one folder; `output` is the folder above it.")
    if config.val_share is not None and config.val_split is not None:
        raise InputError(f"`val_share` divides the training split, and `val_split` is {config.val_split}: give one.")
    if config.min_size is not None and config.min_size > config.size:
        raise InputError(
            f"`min_size` {config.min_size} is larger than `size` {config.size}: images grow from one to the other."
        )
    if len(config.size_ramp) != 2 or config.size_ramp[0] > config.size_ramp[1]:
        raise InputError(f"`size_ramp` is {config.size_ramp}: give two fractions of the run in rising order.")
    if config.order == "pages" and (config.aug_repeats > 1 or config.sampler == "balanced"):
        setting = "aug_repeats" if config.aug_repeats > 1 else "sampler"
        raise InputError(
            f"`{setting}` {getattr(config, setting)} shuffles image by image, and `order` pages by pages: use one of "
            "the two."
        )
    check_optimizer(config)
    check_loss(config)
    if config.pretrained and config.initial_checkpoint is not None:
        raise InputError("`pretrained` and `initial_checkpoint` are both weights to start from: give one.")
    if config.pretrained and config.stem == "cifar" and ":" not in config.model:
        raise InputError("`pretrained` weights have the imagenet `stem`, not cifar: give `stem` imagenet, or another.")
    if config.weights_key is not None and config.initial_checkpoint is None:
        raise InputError("`weights_key` is for the file of `initial_checkpoint`: give one, or leave it out.")
    if config.warmup + config.cooldown > 1:
        raise InputError(
            f"warm-up and cooldown are {config.warmup:g} and {config.cooldown:g} of the run: give at most 1 in sum."
        )


def check_optimizer(config: Config) -> None:
    """Check the name of the optimizer and the settings that depend on it.

    Raises:
        InputError: the message names the setting.
    """
    if config.opt not in OPTIMIZERS and not config.opt.startswith("timm:"):
        if _is_timms(config.opt):
            raise InputError(f"`opt` {config.opt!r} is an optimizer of timm: give timm:{config.opt}.")
        raise unknown("`opt`", config.opt, [*OPTIMIZERS, "timm:NAME"])
    if config.opt == "sgd" and config.nesterov and not config.momentum:
        raise InputError("`nesterov` needs momentum, and `momentum` is 0: give `momentum`, or turn `nesterov` off.")
    for name in ("opt_eps", "opt_betas"):
        if config.opt == "sgd" and getattr(config, name):
            raise InputError(f"`{name}` is for Adam and others, and `opt` is sgd: leave it out.")
    if config.opt in ("adam", "adamw") and len(config.opt_betas) not in (0, 2):
        raise InputError(f"`opt_betas` is {config.opt_betas}: give two numbers for {config.opt}.")
    if config.min_lr > config.lr:
        raise InputError(
            f"`min_lr` {config.min_lr:g} is more than `lr` {config.lr:g}: the rate falls from one to the other."
        )


def check_loss(config: Config) -> None:
    """Check the settings of the loss.

    Raises:
        InputError: the message names the setting.
    """
    for name in ("bce_target_threshold", "bce_sum"):
        if getattr(config, name) not in (None, False) and not config.bce_loss:
            raise InputError(f"`{name}` is for `bce_loss`: turn that on, or leave it out.")
    weights = config.class_weight
    if isinstance(weights, Mapping):
        for name, value in weights.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InputError(f"`class_weight` of {name!r} is {value!r}: give a number of at least 0.")
    elif weights not in (None, "balanced"):
        raise InputError(f"`class_weight` is {weights!r}: give balanced, or numbers by name of the class.")


def _is_timms(name: str) -> bool:
    """Whether timm is installed and has an optimizer of that name."""
    try:
        from timm.optim import list_optimizers
    except (ImportError, RuntimeError):  # torchvision that was built for another torch fails on import
        return False
    return name.removeprefix("lookahead_") in list_optimizers()


def check_range(name: str, value: float) -> None:
    """Check a number against its row of ``RANGES``.

    Raises:
        InputError: it is out of range, or not a number.
    """
    brackets, low, high = RANGES[name]
    above = value > low or (brackets[0] == "[" and value == low)
    below = value < high or (brackets[1] == "]" and value == high)
    if not (above and below):
        least = f"{'at least' if brackets[0] == '[' else 'more than'} {low:g}"
        most = f" and {'at most' if brackets[1] == ']' else 'less than'} {high:g}" if high < math.inf else ""
        raise InputError(f"`{name}` is {value:g}: give {least}{most}.")


def check_reg_args(arguments: Mapping[str, Any]) -> None:
    """Raise InputError for a method parameter that is a setting of its own, such as ``seed``."""
    if not isinstance(arguments, Mapping):
        raise InputError(f"`reg_args` is {str(arguments)[:100]}: give values by name.")
    for name in arguments:
        if name == "dataset":
            raise InputError("`reg_args` contains dataset: name the data set itself (`dataset`).")
        if name in COMMON:
            raise InputError(f"`reg_args` contains {name}: give `{name}` as a setting of its own.")


def make_config(
    dataset: str, *, gpu: bool, world: int = 1, settings: Mapping[str, Any] | None = None, **overrides: Any
) -> tuple[Config, list[str]]:
    """Settings of a new run: those of a recipe, overridden.

    A given batch without a given ``lr`` scales the recipe's learning rate linearly.

    Args:
        dataset: name of a data set to train on.
        gpu: whether the run uses a GPU; recipe "auto" depends on it.
        world: number of ranks, which share the recipe's global batch.
        settings: those of a file (config_file.py). With ``global_batch`` they belong to the recipe, without it they are
            overrides.
        overrides: fields of :class:`Config`, or names of timm and torchvision (flag_aliases.py). None means not given.
            ``faithful=True`` sets what the original code had (faithful.py), unless it is given.

    Returns:
        The settings, and messages that name the recipe and the changes to it.

    Raises:
        InputError: an unknown name, a value out of range, or settings that contradict each other.
    """
    from fastreg import methods

    check_dataset(dataset)
    given = {key: value for key, value in overrides.items() if value is not None}
    faithful = given.pop("faithful", False)
    if faithful:
        given["recipe"] = original_recipe(dataset, given.get("recipe", (settings or {}).get("recipe", "auto")))
    stored = {key: value for key, value in (settings or {}).items() if key != "dataset"}
    if "global_batch" not in stored:
        given, stored = {**stored, **given}, {}
    recipe, message = resolve(given.get("recipe", stored.get("recipe", "auto")), dataset, gpu=gpu)
    recipe |= translate(stored, {**recipe, **stored})
    messages = [f"{message}; settings of a file"] if settings else [message]
    given = translate(given, recipe)
    base = {"dataset": dataset, "stem": "cifar" if dataset.startswith("cifar") else "imagenet", **recipe}
    reg = str(given.get("reg") or recipe.get("reg", "none"))
    if reg == recipe.get("reg"):
        given["reg_args"] = {**recipe.get("reg_args", {}), **given.get("reg_args", {})}
    else:
        base["reg_args"] = {}  # the recipe's are for its own methods
    if faithful:
        original = original_settings(dataset, reg, recipe["global_batch"], world, given)
        given |= original
        what = ", ".join(f"{key} {value}" for key, value in original.items())
        messages.append(f"faithful to the original code: {what}; docs/departures.md lists what remains")
    check_reg_args(given.get("reg_args", {}))
    method = methods.create(reg, dataset=dataset, **given.get("reg_args", {}))
    if method.optimizer and "opt" not in given and method.optimizer != recipe.get("opt"):
        given["opt"] = method.optimizer
        messages.append(f"{method.name} is trained with {method.optimizer}, as in its source; opt sgd overrides it")
    if given.get("opt", "sgd") != "sgd" and recipe.get("opt", "sgd") == "sgd" and "lr" not in given:
        if given["opt"].startswith("timm:"):
            raise InputError(f"`opt` {given['opt']} needs `lr`: the recipe's rate {recipe['lr']:g} is for sgd.")
        base["lr"] = 1e-3  # torch's default, since the recipe's rate is for SGD
    if "size" in given and "eval_size" not in given:
        base["eval_size"] = given["size"]
    if "size" in given and base.get("min_size") and "min_size" not in given:
        base["min_size"] = 8 * max(round(base["min_size"] * given["size"] / base["size"] / 8), 1)
        messages.append(f"images grow from {base['min_size']} to {given['size']} px, in the recipe's proportion")
    if given.get("momentum") == 0 and "nesterov" not in given:
        base["nesterov"] = False
    return _with_batch(base, given, world, messages, "recipe")


def continue_config(
    dataset: str, run: Mapping[str, Any], *, gpu: bool, world: int = 1, **overrides: Any
) -> tuple[Config, list[str]]:
    """Settings of a resumed run: those of the run, overridden.

    Another recipe brings all its settings. If neither ``batch_size`` nor ``grad_accum_steps`` is given, the ranks share
    the run's global batch in micro-batches of the run's size, or in smaller ones if that is not possible.

    Args:
        dataset: the run's data set.
        run: the run's config.json.
        gpu: whether the run uses a GPU.
        world: number of ranks.
        overrides: as in :func:`make_config`.

    Returns:
        The settings, and messages.

    Raises:
        InputError: another data set, an unknown name, a value out of range, a batch that cannot be shared, or missing
            data of the run.
    """
    check_dataset(dataset)
    base = {name: value for name, value in run.items() if name in Config.__dataclass_fields__}
    if base.get("dataset") != dataset:
        raise InputError(f"the run to resume trains on {base.get('dataset')}, not on {dataset}: give its data set.")
    try:
        base = to_dict(Config(**base))
    except (TypeError, AttributeError, RecursionError) as error:
        why = str(error).split("\n")[0][:200]
        raise InputError(f"the run's config.json has a value of a wrong type ({why}): put back a copy.") from None
    given = {key: value for key, value in overrides.items() if value is not None}
    if given.pop("faithful", False):
        raise InputError("`faithful` is for a new run, and a resumed run keeps its settings: leave it out.")
    if is_own(base["model"]):
        confirm_own(base["model"], given.get("model"), "the run to resume")
    if "data_dir" not in given:
        base["data_dir"] = stored_data_dir(run)
    messages = ["settings: those of the resumed run"]
    if given.get("recipe", base["recipe"]) != base["recipe"]:
        recipe, message = resolve(given["recipe"], dataset, gpu=gpu)
        base |= recipe
        messages.append(message)
    elif not given.keys() & {"batch_size", "grad_accum_steps"}:
        share = base["global_batch"] // world
        least = max(math.ceil(share / base["batch_size"]), 1)
        base["grad_accum_steps"] = next((k for k in range(least, share + 1) if share % k == 0), 1)
    given = translate(given, base)
    return _with_batch({**base, "batch_size": None}, given, world, messages, "run")


def check_dataset(name: str) -> None:
    """Raise InputError for an unknown data set, or for one that is not for training."""
    from fastreg.pipelines import DATASETS

    if name not in DATASETS and ("/" in name or os.path.isdir(name)):
        raise InputError(
            f"unknown data set {name!r}: train on a folder of images with "
            f"`fastreg train folder --data-dir {shlex.quote(name)}`."
        )
    if name not in DATASETS:
        raise unknown("data set", name, [one for one in DATASETS if one != "svhn"])
    if name == "svhn":
        raise InputError("svhn is the out-of-distribution set of ood_svhn: train on imagenet, cifar100 or cifar10.")


def _with_batch(
    base: dict[str, Any], given: dict[str, Any], world: int, messages: list[str], owner: str
) -> tuple[Config, list[str]]:
    """``base`` (the settings of a recipe or run: ``owner``) overridden by ``given``, with the batch of each rank."""
    config = Config(**{**base, **given})
    share = world * config.grad_accum_steps
    if config.batch_size is None:
        if config.global_batch % share:
            raise InputError(
                f"the {owner}'s batch of {config.global_batch} does not divide by {world} processes x "
                f"{config.grad_accum_steps} accumulation steps: give `batch_size`."
            )
        config.batch_size = config.global_batch // share
    real = config.batch_size * share
    if real != config.global_batch:
        if "lr" not in given:
            for name in ("lr", "min_lr", "warmup_lr"):
                if name not in given and getattr(config, name):
                    setattr(config, name, getattr(config, name) * real / config.global_batch)
            messages.append(
                f"learning rate {config.lr:g}: the {owner}'s, scaled from batch {config.global_batch} to {real}"
            )
        config.global_batch = real
    changed = {k: v for k, v in given.items() if k in base and base[k] != v and k not in ("dataset", "recipe")}
    changed |= {k: f"of {len(v)} names" for k, v in changed.items() if isinstance(v, dict) and len(v) > 8}
    if changed:
        messages.append("flags override: " + ", ".join(f"{k} {v}" for k, v in changed.items()))
    return config, messages


def added_settings() -> dict[str, Any]:
    """The settings of ``ADDED`` with their defaults."""
    return {name: value for name, value in to_dict(Config("imagenet")).items() if name in ADDED}


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as plain values by name."""
    return dataclasses.asdict(config)
