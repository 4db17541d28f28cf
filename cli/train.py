"""``fastreg train``: train a classifier, or the generator of ``ood_gan``."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import typer

from fastreg.cli import app
from fastreg.cli.options import Command, fractions, with_flags

What = Annotated[
    str | None,
    typer.Argument(
        metavar="DATASET",
        help="imagenet, cifar100, cifar10; a folder of class folders; folder: the one at --data-dir; gan: of ood_gan. "
        "Default: that of --config.",
    ),
]


@app.command(no_args_is_help=True, cls=Command)
@with_flags
def train(dataset: What = None, **flags: Any) -> None:
    """Train a classifier and write runs/NAME. Flags of timm and torchvision are accepted."""
    from fastreg.cli.shared import parse_object, world_and_gpu

    dataset, flags["data_dir"] = _data_set(dataset, flags["data_dir"])
    flags["reg_args"] = parse_object("--reg-args", flags["reg_args"])
    flags["model_kwargs"] = parse_object("--model-args", flags["model_kwargs"])
    for name in ("milestones", "size_ramp", "opt_betas"):
        flags[name] = fractions("--" + name.replace("_", "-"), flags[name])
    flags["freeze"] = flags["freeze"] and tuple(flags["freeze"].split(","))
    resume, file = flags.pop("resume"), flags.pop("config")
    if dataset == "gan":
        return _gan(flags, resume)
    gpus, allow_changes, seeds = flags.pop("gpus"), bool(flags.pop("allow_changes")), flags.pop("seeds")
    from fastreg.distributed import init_distributed
    from fastreg.errors import InputError, RunError
    from fastreg.log import log
    from fastreg.models.own import is_own
    from fastreg.training import make_config
    from fastreg.training import train as run
    from fastreg.training.config_file import read_config
    from fastreg.training.loss import read_class_weight
    from fastreg.training.resume import choose_folder, settings_at
    from fastreg.training.run_config import continue_config
    from fastreg.training.seeds import of_seeds, parse_seeds

    if seeds is not None and (flags["seed"] is not None or resume not in (None, "auto")):
        other = f"`seed` {flags['seed']}" if flags["seed"] is not None else f"`resume` {resume}"
        raise InputError(f"`seeds` {seeds} and {other} contradict each other: leave out one of them.")
    if gpus is not None and gpus < 1:
        raise InputError(f"`gpus` is {gpus}: give at least 1.")
    with _one_error_per_run():
        world, gpu = world_and_gpu(flags["device"])
        start = gpus is not None and gpus > 1 and "RANK" not in os.environ
        flags |= {"gpu": gpu, "world": gpus if start else world}
        settings = read_config(file) if file else {}
        flags["class_weight"] = read_class_weight(flags["class_weight"])
        dataset = dataset or settings.get("dataset")
        if dataset is None:
            raise InputError("no data set is given: name it first, as in `fastreg train imagenet`, or in the file.")
        if resume in (None, "auto"):
            config, messages = make_config(dataset, settings=settings, **flags)
        else:
            given = {**settings, **{key: value for key, value in flags.items() if value is not None}}
            config, messages = continue_config(**{**given, "dataset": dataset}, run=settings_at(resume))
        configs = [config] if seeds is None else of_seeds(config, parse_seeds(seeds))
        if start:
            from fastreg.training.launch import check_run, launch

            for one in configs:
                check_run(one, resume, gpus, allow_changes)
            raise typer.Exit(launch(gpus, sys.argv[1:]))
        if seeds is not None and os.environ.get("RANK", "0") == "0":  # a later seed's name may be taken
            for one in configs:
                choose_folder(one, resume, flags["world"], allow_changes)
        for message in messages:
            log.info(message)
        folders = []
        # the processes join once for all seeds
        with nullcontext() if seeds is None else init_distributed(config.device):
            for one in configs:
                try:
                    folders.append(run(one, resume=resume, allow_changes=allow_changes))
                except RunError:
                    if seeds is not None:
                        log.info("seeds: this command with --resume auto continues at seed %d", one.seed)
                    raise
    suite = "imagenet-c" if dataset == "imagenet" else "paper"
    own = f" --model {shlex.quote(config.model)}" if is_own(config.model) else ""  # never taken from the run
    log.info("next: fastreg eval %s%s --suite %s", shlex.join(map(str, folders)), own, suite)


def _data_set(name: str | None, data_dir: str | None) -> tuple[str | None, str | None]:
    """Name and folder of the data: a path instead of a name is a folder of images."""
    from pathlib import Path

    from fastreg.errors import InputError, unknown
    from fastreg.pipelines import DATASETS
    from fastreg.pipelines.address import is_address, is_pattern

    if name is None or name == "gan" or name in DATASETS:
        return name, data_dir
    path = is_address(name) or is_pattern(name) or "/" in name or Path(name).exists()
    if not path:
        raise unknown("data set", name, [*(one for one in DATASETS if one != "svhn"), "gan", "or a folder"])
    if not (is_address(name) or is_pattern(name) or Path(name).exists()):
        raise InputError(
            f"`dataset` {name} does not exist: a path stands for `fastreg train folder --data-dir {shlex.quote(name)}`."
        )
    if data_dir is not None:
        raise InputError(f"`dataset` {name} and `data_dir` {data_dir} are both folders: give one.")
    return "folder", name


@contextmanager
def _one_error_per_run() -> Iterator[None]:
    """Print an error that all ranks raise on rank 0 only, and an input error on the first rank of each node."""
    from fastreg.errors import InputError, SharedError

    try:
        yield
    except (InputError, SharedError) as error:
        bad_input = isinstance(error, InputError)
        if os.environ.get("LOCAL_RANK" if bad_input else "RANK", "0") == "0":
            raise
        raise typer.Exit(2 if bad_input else 1) from None


def _gan(flags: dict[str, Any], resume: str | None) -> None:
    """``fastreg train gan``, which takes few of the flags."""
    from fastreg.errors import InputError, unknown
    from fastreg.log import log
    from fastreg.training.gan import gan_settings, train_gan

    takes = ("data_dir", "batch_size", "lr", "seed", "device", "output", "name", "recovery_interval")
    given = {key: value for key, value in flags.items() if value is not None}
    own = given.pop("reg_args", {})
    for key in given:
        if key not in takes:
            accepted = ", ".join(f"`{name}`" for name in (*takes, "reg_args", "resume"))
            raise InputError(f"`{key}` is not for `fastreg train gan`, which takes {accepted}.")
    kinds: dict[str, type] = {"steps": int, "width": int, "latent": int, "dataset": str}
    for key, value in own.items():
        if key not in kinds:
            raise unknown("parameter of the GAN", key, kinds)
        if type(value) is not kinds[key]:
            kind = "a name" if key == "dataset" else "a whole number"
            raise InputError(f"`reg_args`: {key} of the GAN must be {kind}, but is {value!r}.")
        given[key] = value
    if "recovery_interval" in given:
        given["save_every"] = given.pop("recovery_interval")
    if resume not in (None, "auto"):
        given = {**gan_settings(resume), **given}
    folder = train_gan(**given, resume=resume or False)
    words = ["fastreg", "train", given.get("dataset", "cifar100")]
    words += ["--data-dir", given["data_dir"]] if given.get("data_dir") else []
    words += ["--reg", "ood_gan", "--reg-args", json.dumps({"ood": str(folder)})]
    log.info("next: %s", shlex.join(words))
