"""The flags of ``fastreg train``: a table, and the command's signature made from it.

A row is a setting of ``training.Config`` or a name of training/flag_aliases.py. Names of timm come first, then those of
torchvision.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from fastreg.cli.foreign_flags import refusal
from fastreg.pipelines.loader_table import loader_help

Flags = dict[str, dict[str, tuple[type, str, str]]]  # panel of the help -> setting: (type, names, help)
FLAGS: Flags = {
    "Data": {
        "data_dir": (str, "--data-dir --data-path", "Folder or file of the data set."),
        "train_split": (str, "--train-split", "Name of the training split, in names of folders and shards."),
        "val_split": (str, "--val-split", "Name of the validation split."),
        "val_share": (float, "--val-share", "Validate on this share of a set without a validation split."),
        "image_key": (str, "--image-key", "Shards: extension or column of the image."),
        "label_key": (str, "--label-key", "Shards: extension, JSON field or column of the label."),
        "class_map": (str, "--class-map", "timm, torchvision, or a file of class names and outputs."),
        "channels": (int, "--channels --in-chans", "3; or 1: a model of gray images."),
        "cache_dir": (str, "--cache-dir", "Folder for copies of remote files."),
        "cache_gb": (float, "--cache-gb", "Its limit in GB; default 100."),
        "loader": (str, "--loader", f"{loader_help()}."),
        "workers": (int, "-j --workers", "Decoding threads per process."),
        "drop_last": (bool, "--drop-last/--no-drop-last", "Leave out the last, partial batch of an epoch."),
        "on_bad_image": (str, "--on-bad-image", "error; or skip: train without broken images."),
        "order": (str, "--order", "random; or pages: shuffle a .beton larger than memory."),
        "sampler": (str, "--sampler", "random; or balanced: the same share of an epoch for every class."),
        "aug_repeats": (int, "--aug-repeats", "Times that an epoch repeats each image, augmented anew; 0 or 1: once."),
        "ra_sampler": (bool, "--ra-sampler", "Repeat each image --ra-reps times (3)."),
        "ra_reps": (int, "--ra-reps", "Repeats of --ra-sampler."),
    },
    "Model": {
        "model": (
            str,
            "--model",
            "resnet18 to 152, pyramidnet200, timm:NAME, torchvision:NAME, package.module:function.",
        ),
        "stem": (str, "--stem", "First layers of a ResNet: imagenet or cifar."),
        "blurpool": (bool, "--blurpool/--no-blurpool", "Low-pass filter before strided convolutions."),
        "model_kwargs": (str, "--model-args --model-kwargs", "Further arguments of the model, as JSON."),
        "drop": (float, "--drop", "Dropout of a timm model."),
        "pretrained": (bool, "--pretrained/--no-pretrained", "Start from the weights that timm or torchvision has."),
        "initial_checkpoint": (str, "--initial-checkpoint", "Start from the weights of a file or run folder."),
        "weights_key": (str, "--weights-key", "The weights in that file if it has several, such as state_dict_ema."),
        "freeze": (str, "--freeze", "Names not to train, joined by commas: layer1, *.bn1, re:^(?!fc)."),
    },
    "Method": {
        "reg": (str, "--reg", "Methods joined by +, such as mixup or cutmix+shakedrop."),
        "ls": (float, "--ls --smoothing --label-smoothing", "Label smoothing."),
        "bce_loss": (bool, "--bce-loss", "Binary cross-entropy: a sigmoid per class."),
        "bce_target_threshold": (float, "--bce-target-thresh --bce-target-threshold", "Targets above it become 1."),
        "bce_sum": (bool, "--bce-sum", "Sum over the classes instead of the mean."),
        "class_weight": (str, "--class-weight", "balanced, or a JSON file of weights by class name."),
        "scope": (str, "--scope --mix-scope --mixup-mode", "Draw per batch (as the paper) or per sample (or elem)."),
        "reg_args": (str, "--reg-args", "Parameters of the method, or of the GAN, as JSON."),
        "mixup_off_epoch": (int, "--mixup-off-epoch", "Stop mixing at this epoch."),
        "mixup": (float, "--mixup --mixup-alpha", "Mixup with this alpha."),
        "cutmix": (float, "--cutmix --cutmix-alpha", "CutMix with this alpha."),
        "mixup_prob": (float, "--mixup-prob", "Share of batches to mix."),
        "mixup_switch_prob": (float, "--mixup-switch-prob", "Share of CutMix in the mixed batches."),
        "reprob": (float, "--reprob --random-erase", "Probability of random erasing."),
        "remode": (str, "--remode", "Fill of random erasing before mixing: const (the mean color) or pixel (noise)."),
        "drop_path": (float, "--drop-path", "Rate of stochastic depth, of timm models too."),
        "aa": (str, "--aa", "timm's RandAugment or AugMix: rand-m9-mstd0.5-inc1, augmix-m3-w3 ..."),
        "auto_augment": (str, "--auto-augment", "torchvision's: ra, ta_wide, imagenet, cifar10 or augmix."),
        "ra_magnitude": (int, "--ra-magnitude", "Magnitude of --auto-augment ra (9)."),
        "augmix_severity": (int, "--augmix-severity", "Severity of --auto-augment augmix (3)."),
        "aug_splits": (int, "--aug-splits", "3: a plain and two augmented views, for --jsd-loss."),
        "jsd_loss": (bool, "--jsd-loss", "Add the Jensen-Shannon divergence of the views to the loss."),
    },
    "Schedule": {
        "recipe": (str, "--recipe", "auto, or a name from fastreg recipes."),
        "faithful": (bool, "--faithful", "As the paper's original code: fp32, its micro-batches, ... (slower)."),
        "config": (str, "-c --config", "A file of settings, YAML or JSON, or a run folder; flags override it."),
        "epochs": (int, "--epochs", "Length of the run; the schedule is scaled to it."),
        "batch_size": (int, "-b --batch-size", "Images per process and micro-batch."),
        "grad_accum_steps": (int, "--grad-accum-steps", "Micro-batches per step."),
        "opt": (str, "--opt", "sgd, adam, adamw, timm:NAME; momentum, sgd_nesterov: sgd without or with Nesterov."),
        "opt_eps": (float, "--opt-eps", "Epsilon of Adam and others."),
        "opt_betas": (str, "--opt-betas", "Betas of Adam and others: 0.9 0.95."),
        "lr": (float, "--lr", "Peak learning rate."),
        "momentum": (float, "--momentum", "Momentum of SGD."),
        "nesterov": (bool, "--nesterov/--no-nesterov", "Nesterov momentum."),
        "weight_decay": (float, "--weight-decay --wd", "L2 penalty."),
        "norm_weight_decay": (
            bool,
            "--norm-weight-decay/--no-norm-weight-decay",
            "Also for norms and biases.",
        ),
        "layer_decay": (float, "--layer-decay", "Learning rate of a layer relative to the next one's, such as 0.75."),
        "sched": (str, "--sched --lr-scheduler", "step, cosine, linear, poly or constant."),
        "sched_on_updates": (bool, "--sched-on-updates", "Change the rate with each step, which is always so."),
        "milestones": (str, "--milestones --decay-milestones", "Epochs, or fractions of the run, of sched step."),
        "decay_epochs": (float, "--decay-epochs --lr-step-size", "Epochs between the milestones of sched step."),
        "decay_rate": (float, "--decay-rate --lr-gamma", "Factor at a milestone of sched step; power of sched poly."),
        "min_lr": (float, "--min-lr --lr-min", "Learning rate at the end of sched cosine, linear or poly."),
        "warmup": (float, "--warmup", "Warm-up as a fraction of the run."),
        "warmup_epochs": (float, "--warmup-epochs --lr-warmup-epochs", "Warm-up in epochs."),
        "warmup_lr": (float, "--warmup-lr", "Learning rate at the start of the warm-up."),
        "warmup_overlap": (bool, "--warmup-overlap", "Let the schedule begin with the warm-up, as timm does."),
        "warmup_prefix": (bool, "--warmup-prefix", "Add the epochs of the warm-up to the run."),
        "lr_warmup_method": (str, "--lr-warmup-method", "linear."),
        "lr_warmup_decay": (float, "--lr-warmup-decay", "--warmup-lr as a share of --lr."),
        "cooldown_epochs": (
            int,
            "--cooldown-epochs",
            "Epochs at the last rate, which a cosine leaves at --min-lr, added to the run.",
        ),
        "cooldown": (float, "--cooldown", "--cooldown-epochs as a share of the run."),
        "clip_grad": (float, "--clip-grad --clip-grad-norm", "Largest gradient norm."),
        "model_ema": (bool, "--model-ema", "Average the weights: decay 0.9998 with warm-up."),
        "model_ema_decay": (float, "--model-ema-decay", "Average the weights with this decay."),
        "model_ema_every": (int, "--model-ema-every --model-ema-steps", "Steps between updates of the average."),
        "model_ema_warmup": (bool, "--model-ema-warmup/--no-model-ema-warmup", "Let the decay rise from 0.1."),
    },
    "Pixels": {
        "size": (int, "--size --img-size --train-crop-size", "Side of training images."),
        "eval_size": (int, "--eval-size --val-crop-size", "Side of validation images."),
        "crop_pct": (float, "--crop-pct", "--eval-size divided by the resized side of validation images."),
        "val_resize_size": (int, "--val-resize-size", "Resized side of validation images."),
        "interpolation": (str, "--interpolation", "Of validation images: bilinear, bicubic, lanczos or nearest."),
        "min_size": (int, "--min-size", "Side of training images at the start, growing to --size."),
        "size_ramp": (str, "--size-ramp", "Two fractions of the run between which images grow."),
        "shift": (int, "--shift", "Largest random shift of CIFAR images."),
        "color_jitter": (float, "--color-jitter", "Largest change of brightness, contrast, saturation."),
        "color_clip": (bool, "--color-clip/--no-color-clip", "Clip and round jittered colors to bytes."),
        "lighting": (float, "--lighting", "Standard deviation of PCA lighting."),
    },
    "Execution": {
        "precision": (str, "--precision --amp-dtype", "auto, bf16, fp16 or fp32."),
        "tf32": (bool, "--tf32/--no-tf32", "TF32 products in precision fp32 on a GPU."),
        "amp": (bool, "--amp", "Half precision if the device has it (--precision auto)."),
        "device": (str, "--device", "auto, cpu, cuda, cuda:1 ..."),
        "gpus": (int, "--gpus", "Start this many processes with torchrun."),
        "channels_last": (bool, "--channels-last/--no-channels-last", "Memory layout of activations."),
        "torchcompile": (str, "--torchcompile", "auto, off, default (or no value), reduce-overhead, max-autotune."),
        "sync_bn": (bool, "--sync-bn", "Batch norm over all processes."),
        "deterministic": (bool, "--deterministic --use-deterministic-algorithms", "Bitwise repeatable on a GPU too."),
        "seed": (int, "--seed", "Key of all random draws."),
        "seeds": (str, "--seeds", "Train a run per seed in turn, such as 0,1,2, as NAME-s0, NAME-s1 ..."),
        "profile": (int, "--profile", "Trace this many steps."),
    },
    "Run": {
        "log_tensorboard": (bool, "--log-tensorboard", "Write scalars for TensorBoard too."),
        "log_wandb": (bool, "--log-wandb", "Send scalars to Weights & Biases too."),
        "output": (str, "--output --output-dir", "Folder of run folders."),
        "name": (str, "--name --experiment", "Name of the run folder."),
        "resume": (str, "--resume", "auto, or a run folder; keeps that run's settings."),
        "allow_changes": (bool, "--allow-changes", "Resume with other settings."),
        "best_of_ties": (str, "--best-of-ties", "Of the epochs with the lowest error, the first or last is best."),
        "recovery_interval": (int, "--recovery-interval", "Steps between checkpoints in an epoch."),
        "log_interval": (int, "--log-interval --print-freq", "Steps between log writes."),
    },
}
BARE = {"--torchcompile": "default", "--csv": "-"}  # the value of a flag given without one
SEVERAL = ("--milestones", "--decay-milestones", "--size-ramp", "--opt-betas")  # flags that take several words


class Command(TyperCommand):
    """A command whose flags may have no value, or several words, as in argparse."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = (name for parameter in self.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts))
        if ctx.info_name == "train" and (sentence := refusal(args, known)):
            from fastreg.errors import InputError

            raise InputError(sentence)
        try:
            return super().parse_args(ctx, one_value_each(args))
        except typer.BadParameter as error:
            wrong: list[Any] = getattr(
                error.__cause__, "errors", list
            )()  # pydantic's message leaves out the value given
            if not wrong or error.param is None:
                raise
            from fastreg.errors import InputError

            names = error.param.opts
            flag = next((name for name in names if any(word.split("=")[0] == name for word in args)), names[0])
            kind = "whole number" if wrong[0]["type"].startswith("int") else "number"
            raise InputError(f"{flag} {wrong[0]['input']}: give a {kind}.") from None


def one_value_each(words: list[str]) -> list[str]:
    """The words of a command line with exactly one value for each flag of ``BARE`` and ``SEVERAL``."""
    out: list[str] = []
    for i, word in enumerate(words):
        if word in BARE and (i + 1 == len(words) or words[i + 1].startswith("-")):
            out.append(f"{word}={BARE[word]}")
        elif len(out) > 1 and out[-2] in SEVERAL and word.replace(".", "").isdigit():
            out[-1] += f",{word}"
        else:
            out.append(word)
    return out


def with_flags(command: Callable[..., Any], table: Flags = FLAGS) -> Callable[..., Any]:
    """Give ``command(..., **flags)`` the signature from which typer makes its options; absent flags are None."""
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    parameters.popitem()
    for panel, rows in table.items():
        for name, (kind, names, text) in rows.items():
            optional: Any = kind | None
            option = Annotated[optional, typer.Option(*names.split(), help=text, rich_help_panel=panel)]
            parameters[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return command


def flag_names(table: Flags) -> dict[str, str]:
    """The flag of each setting of a table, by the setting's name: the first that begins with two hyphens."""
    rows = {name: names for panel in table.values() for name, (_, names, _) in panel.items()}
    return {name: next(n for n in names.split() if n.startswith("--")) for name, names in rows.items()}


def fractions(flag: str, text: str | None) -> tuple[float, ...] | None:
    """The numbers of a text such as ``0.5,0.75``. Raises InputError for anything else."""
    from fastreg.errors import InputError

    try:
        return None if text is None else tuple(float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"{flag} {text}: give numbers separated by commas, such as 0.5,0.75.") from None
