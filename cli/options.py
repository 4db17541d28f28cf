"""The flags of ``fastreg train``: a table, and the command's signature made of it.

A row is a field of ``training.Config`` or a word of dialect.py. timm's names stand first, then torchvision's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

Flags = dict[str, dict[str, tuple[type, str, str]]]  # panel of the help -> field: (type, names, help)
FLAGS: Flags = {
    "Data": {
        "data_dir": (str, "--data-dir --data-path", "Where the data set lies."),
        "loader": (str, "--loader", "auto, folder, dali, ffcv, resident or synthetic."),
        "workers": (int, "-j --workers", "Decoding threads."),
        "on_bad_image": (str, "--on-bad-image", "error, or skip: train without it."),
        "order": (str, "--order", "random, or pages: a .beton beyond memory, page by page."),
    },
    "Model": {
        "model": (str, "--model", "resnet18 .. 152, pyramidnet200, timm:NAME, torchvision:NAME ..."),
        "stem": (str, "--stem", "A ResNet's first layers: imagenet or cifar."),
        "blurpool": (bool, "--blurpool/--no-blurpool", "Low-pass before strided convolutions."),
    },
    "Method": {
        "reg": (str, "--reg", "Methods joined by +, such as mixup or cutmix+shakedrop."),
        "ls": (float, "--ls --smoothing --label-smoothing", "Label smoothing."),
        "scope": (str, "--scope --mix-scope --mixup-mode", "Draw per batch (the paper) or per sample (elem)."),
        "reg_args": (str, "--reg-args", "The method's (or the GAN's) own parameters as JSON."),
        "mixup_off_epoch": (int, "--mixup-off-epoch", "From this epoch on nothing is mixed."),
        "mixup": (float, "--mixup --mixup-alpha", "Mixup with this alpha."),
        "cutmix": (float, "--cutmix --cutmix-alpha", "CutMix with this alpha."),
        "mixup_prob": (float, "--mixup-prob", "Share of batches to mix."),
        "mixup_switch_prob": (float, "--mixup-switch-prob", "CutMix's share of the mixed batches."),
        "reprob": (float, "--reprob --random-erase", "Random erasing with this probability."),
        "drop_path": (float, "--drop-path", "Stochastic depth with this rate."),
    },
    "Schedule": {
        "recipe": (str, "--recipe", "auto, or a name from fastreg recipes."),
        "epochs": (int, "--epochs", "Rescales the whole schedule."),
        "batch_size": (int, "-b --batch-size", "Images per process and micro-batch."),
        "grad_accum_steps": (int, "--grad-accum-steps", "Micro-batches per step."),
        "opt": (str, "--opt", "sgd or adam; momentum, sgd_nesterov: sgd without and with Nesterov's."),
        "lr": (float, "--lr", "Peak learning rate."),
        "momentum": (float, "--momentum", "SGD's momentum."),
        "nesterov": (bool, "--nesterov/--no-nesterov", "Nesterov's momentum."),
        "weight_decay": (float, "--weight-decay --wd", "L2 penalty."),
        "norm_weight_decay": (bool, "--norm-weight-decay/--no-norm-weight-decay", "Decay norms and biases."),
        "sched": (str, "--sched --lr-scheduler", "step, cosine or linear."),
        "milestones": (str, "--milestones --decay-milestones", "Epochs, or fractions of the run, of sched step."),
        "warmup": (float, "--warmup", "Fraction of the run."),
        "warmup_epochs": (float, "--warmup-epochs --lr-warmup-epochs", "The same in epochs."),
        "clip_grad": (float, "--clip-grad --clip-grad-norm", "Largest gradient norm."),
        "model_ema": (bool, "--model-ema", "Average the weights, with a decay of 0.9998."),
        "model_ema_decay": (float, "--model-ema-decay", "Average the weights with this decay."),
    },
    "Pixels": {
        "size": (int, "--size --img-size --train-crop-size", "Training pixels."),
        "eval_size": (int, "--eval-size --val-crop-size", "Validation pixels."),
        "min_size": (int, "--min-size", "Training pixels at first, growing to --size ..."),
        "size_ramp": (str, "--size-ramp", "... between these two fractions of the run."),
        "shift": (int, "--shift", "Pixels by which CIFAR's pictures move at random."),
        "color_jitter": (float, "--color-jitter", "Brightness, contrast, saturation by up to this."),
        "lighting": (float, "--lighting", "Standard deviation of PCA lighting."),
    },
    "Engine": {
        "precision": (str, "--precision --amp-dtype", "auto, bf16, fp16 or fp32."),
        "amp": (bool, "--amp", "Half precision where the device has it: --precision auto."),
        "device": (str, "--device", "auto, cpu, cuda, cuda:1 ..."),
        "gpus": (int, "--gpus", "Start that many processes with torchrun."),
        "channels_last": (bool, "--channels-last/--no-channels-last", "Memory layout."),
        "torchcompile": (str, "--torchcompile", "default (also without a value), reduce-overhead or max-autotune."),
        "sync_bn": (bool, "--sync-bn", "Batch norm over all processes."),
        "deterministic": (bool, "--deterministic --use-deterministic-algorithms", "Bitwise repeatable on a GPU too."),
        "seed": (int, "--seed", "Key of every random draw."),
        "profile": (int, "--profile", "Trace that many steps."),
    },
    "Run": {
        "log_tensorboard": (bool, "--log-tensorboard", "Scalars for TensorBoard too."),
        "output": (str, "--output --output-dir", "Folder of run folders."),
        "name": (str, "--name --experiment", "The run folder's name."),
        "resume": (str, "--resume", "auto, or a run folder, whose settings hold."),
        "allow_changes": (bool, "--allow-changes", "Resume with other settings."),
        "recovery_interval": (int, "--recovery-interval", "Steps between checkpoints in an epoch."),
        "log_interval": (int, "--log-interval --print-freq", "Steps between log writes."),
    },
}
BARE = {"--torchcompile": "default"}  # what a flag without a value means
SEVERAL = ("--milestones", "--decay-milestones", "--size-ramp")  # flags whose values may stand one behind the other


class Command(TyperCommand):
    """A command whose flags may have no value, or several, as argparse has them."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, one_value_each(args))
        except typer.BadParameter as error:
            wrong = getattr(error.__cause__, "errors", list)()  # pydantic's, whose sentence leaves out what was given
            if not wrong or error.param is None:
                raise
            from fastreg.errors import InputError

            names = error.param.opts
            flag = next((name for name in names if any(word.split("=")[0] == name for word in args)), names[0])
            kind = "whole number" if wrong[0]["type"].startswith("int") else "number"
            raise InputError(f"{flag} {wrong[0]['input']}: give a {kind}.") from None


def one_value_each(words: list[str]) -> list[str]:
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
    """``command(..., **flags)`` with the signature from which typer makes its options; absent ones are None."""
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    parameters.popitem()
    for panel, rows in table.items():
        for name, (kind, names, text) in rows.items():
            option = Annotated[kind | None, typer.Option(*names.split(), help=text, rich_help_panel=panel)]
            parameters[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return command


def fractions(flag: str, text: str | None) -> tuple[float, ...] | None:
    """``0.5,0.75`` as numbers. Raises InputError for anything else."""
    from fastreg.errors import InputError

    try:
        return None if text is None else tuple(float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"{flag} takes numbers with commas between, such as 0.5,0.75, but is {text}.") from None
