"""The settings of a training run: one flat dataclass, written as ``config.json``."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

from fastreg.pipelines.class_map import ORDERS
from fastreg.training.config_checks import check


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


def added_settings() -> dict[str, Any]:
    """The settings of ``ADDED`` with their defaults."""
    return {name: value for name, value in to_dict(Config("imagenet")).items() if name in ADDED}


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as plain values by name."""
    return dataclasses.asdict(config)
