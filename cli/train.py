"""``fastreg train`` and ``fastreg recipes``."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from fastreg.cli import app

What = Annotated[
    str, typer.Argument(metavar="DATASET", help="imagenet, cifar100 or cifar10; gan: the generator of ood_gan.")
]


def _option(*names: str, help: str, panel: str, **more):
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


@app.command(no_args_is_help=True)
def train(
    dataset: What,
    data_dir: Annotated[str | None, _option("--data-dir", help="Where the data set lies.", panel="Data")] = None,
    loader: Annotated[
        str | None, _option("--loader", help="auto, folder, dali, ffcv, resident or synthetic.", panel="Data")
    ] = None,
    workers: Annotated[int | None, _option("-j", "--workers", help="Decoding threads.", panel="Data")] = None,
    on_bad_image: Annotated[
        str | None, _option("--on-bad-image", help="error, or skip: train without it.", panel="Data")
    ] = None,
    order: Annotated[
        str | None, _option("--order", help="random, or pages: a .beton beyond memory, page by page.", panel="Data")
    ] = None,
    model: Annotated[
        str | None, _option("--model", help="resnet18 .. 152, pyramidnet200, timm:NAME ...", panel="Model")
    ] = None,
    reg: Annotated[
        str | None, _option("--reg", help="Methods joined by +, such as mixup or cutmix+shakedrop.", panel="Method")
    ] = None,
    ls: Annotated[
        float | None, _option("--ls", "--smoothing", "--label-smoothing", help="Label smoothing.", panel="Method")
    ] = None,
    scope: Annotated[
        str | None, _option("--scope", "--mix-scope", help="Draw per batch (the paper) or per sample.", panel="Method")
    ] = None,
    reg_args: Annotated[
        str | None, _option("--reg-args", help="The method's (or the GAN's) own parameters as JSON.", panel="Method")
    ] = None,
    mixup_off_epoch: Annotated[
        int | None, _option("--mixup-off-epoch", help="From this epoch on nothing is mixed.", panel="Method")
    ] = None,
    recipe: Annotated[
        str | None, _option("--recipe", help="auto, or a name from fastreg recipes.", panel="Schedule")
    ] = None,
    epochs: Annotated[int | None, _option("--epochs", help="Rescales the whole schedule.", panel="Schedule")] = None,
    batch_size: Annotated[
        int | None, _option("-b", "--batch-size", help="Images per process and micro-batch.", panel="Schedule")
    ] = None,
    grad_accum_steps: Annotated[
        int | None, _option("--grad-accum-steps", help="Micro-batches per step.", panel="Schedule")
    ] = None,
    opt: Annotated[str | None, _option("--opt", help="sgd or adam.", panel="Schedule")] = None,
    lr: Annotated[float | None, _option("--lr", help="Peak learning rate.", panel="Schedule")] = None,
    momentum: Annotated[float | None, _option("--momentum", help="SGD's momentum.", panel="Schedule")] = None,
    weight_decay: Annotated[float | None, _option("--weight-decay", help="L2 penalty.", panel="Schedule")] = None,
    norm_weight_decay: Annotated[
        bool | None,
        _option("--norm-weight-decay/--no-norm-weight-decay", help="Decay norms and biases.", panel="Schedule"),
    ] = None,
    sched: Annotated[str | None, _option("--sched", help="step, cosine or linear.", panel="Schedule")] = None,
    warmup: Annotated[float | None, _option("--warmup", help="Fraction of the run.", panel="Schedule")] = None,
    clip_grad: Annotated[float | None, _option("--clip-grad", help="Largest gradient norm.", panel="Schedule")] = None,
    model_ema_decay: Annotated[
        float | None, _option("--model-ema-decay", help="Average the weights.", panel="Schedule")
    ] = None,
    size: Annotated[int | None, _option("--size", "--img-size", help="Training pixels.", panel="Pixels")] = None,
    eval_size: Annotated[int | None, _option("--eval-size", help="Validation pixels.", panel="Pixels")] = None,
    color_jitter: Annotated[
        float | None, _option("--color-jitter", help="Brightness, contrast, saturation by up to this.", panel="Pixels")
    ] = None,
    lighting: Annotated[
        float | None, _option("--lighting", help="Standard deviation of PCA lighting.", panel="Pixels")
    ] = None,
    precision: Annotated[str | None, _option("--precision", help="auto, bf16, fp16 or fp32.", panel="Engine")] = None,
    device: Annotated[str | None, _option("--device", help="auto, cpu, cuda, cuda:1 ...", panel="Engine")] = None,
    gpus: Annotated[int, _option("--gpus", help="Start that many processes with torchrun.", panel="Engine")] = 1,
    channels_last: Annotated[
        bool | None, _option("--channels-last/--no-channels-last", help="Memory layout.", panel="Engine")
    ] = None,
    torchcompile: Annotated[
        str | None, _option("--torchcompile", help="default, reduce-overhead or max-autotune.", panel="Engine")
    ] = None,
    sync_bn: Annotated[bool | None, _option("--sync-bn", help="Batch norm over all processes.", panel="Engine")] = None,
    deterministic: Annotated[
        bool | None, _option("--deterministic", help="Bitwise repeatable on a GPU too.", panel="Engine")
    ] = None,
    seed: Annotated[int | None, _option("--seed", help="Key of every random draw.", panel="Engine")] = None,
    profile: Annotated[int | None, _option("--profile", help="Trace that many steps.", panel="Engine")] = None,
    log_tensorboard: Annotated[
        bool | None, _option("--log-tensorboard", help="Scalars for TensorBoard too.", panel="Run")
    ] = None,
    output: Annotated[str | None, _option("--output", help="Folder of run folders.", panel="Run")] = None,
    name: Annotated[str | None, _option("--name", "--experiment", help="The run folder's name.", panel="Run")] = None,
    resume: Annotated[str | None, _option("--resume", help="auto, or a run folder.", panel="Run")] = None,
    allow_changes: Annotated[bool, _option("--allow-changes", help="Resume with other settings.", panel="Run")] = False,
    recovery_interval: Annotated[
        int | None, _option("--recovery-interval", help="Steps between checkpoints in an epoch.", panel="Run")
    ] = None,
    log_interval: Annotated[
        int | None, _option("--log-interval", help="Steps between log writes.", panel="Run")
    ] = None,
) -> None:
    """Train a classifier; results go to runs/NAME."""
    flags = {k: v for k, v in locals().items() if k not in ("gpus", "resume", "allow_changes", "reg_args")}
    if dataset == "gan":
        return _gan(flags, reg_args, resume)
    if gpus > 1 and "RANK" not in os.environ:
        _with_torchrun(gpus)
    from fastreg.cli.common import parse_object, world_and_gpu
    from fastreg.training import make_config, train

    world, gpu = world_and_gpu(device)
    config, lines = make_config(gpu=gpu, world=world, reg_args=parse_object("--reg-args", reg_args), **flags)
    chief = os.environ.get("RANK", "0") == "0"
    if chief:
        typer.echo("\n".join(lines))
    folder = train(config, resume=resume, allow_changes=allow_changes)
    if chief:
        typer.echo(f"next: fastreg eval {folder} --suite imagenet-c" if dataset == "imagenet" else f"run: {folder}")


def _gan(flags: dict, reg_args: str | None, resume: str | None) -> None:
    """``fastreg train gan``: the flags that mean something to it; the rest are refused."""
    from fastreg.cli.common import parse_object
    from fastreg.errors import InputError, unknown
    from fastreg.training.gan import train_gan

    takes = ("data_dir", "batch_size", "lr", "seed", "device", "output", "name", "recovery_interval")
    given = {key: value for key, value in flags.items() if value is not None and key != "dataset"}
    stray = [key for key in given if key not in takes]
    if stray:
        raise InputError(
            f"train gan has no --{stray[0].replace('_', '-')}: it takes {', '.join(takes)}, reg_args and resume."
        )
    for key, value in (parse_object("--reg-args", reg_args) or {}).items():
        if key not in ("steps", "width", "latent"):
            raise unknown("parameter of the GAN", key, ["steps", "width", "latent"])
        if not isinstance(value, int):
            raise InputError(f"--reg-args: {key} of the GAN must be a whole number, but is {value!r}.")
        given[key] = value
    if "recovery_interval" in given:
        given["save_every"] = given.pop("recovery_interval")
    folder = train_gan(**given, resume=resume is not None)
    typer.echo(f"generator: {folder / 'last.pt'}; next: fastreg train cifar100 --reg ood_gan")


def _with_torchrun(gpus: int) -> None:
    """Become torchrun, which starts this same command once per GPU."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}"]
    os.execv(sys.executable, [*torchrun, "-m", "fastreg", *sys.argv[1:]])


@app.command()
def recipes(
    pattern: Annotated[str, typer.Argument(help="Show only names that contain this.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the resolved settings as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the paper's rows as a table.")] = False,
) -> None:
    """List the named recipes with their settings."""
    if markdown:
        from fastreg.training.table import recipe_table

        typer.echo(recipe_table(), nl=False)
        return
    from fastreg.errors import unknown
    from fastreg.recipes import ALL

    chosen = {name: recipe for name, recipe in ALL.items() if pattern in name}
    if not chosen:
        raise unknown("recipe", pattern, ["auto", *sorted({name.rsplit("/", 1)[0] for name in ALL})])
    if as_json:
        typer.echo(json.dumps(chosen, indent=2))
        return
    for name, recipe in chosen.items():
        shown = ("model", "reg", "ls", "epochs", "global_batch", "opt", "lr", "sched", "size")
        typer.echo(f"{name:42} " + "  ".join(f"{key} {recipe[key]}" for key in shown if key in recipe))
