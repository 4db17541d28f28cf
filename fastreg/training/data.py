"""The training and the validation set, their loaders, and a report of skipped images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from fastreg.distributed import World, raise_on_all_ranks, require_equal
from fastreg.errors import InputError
from fastreg.log import log
from fastreg.pipelines import LOADERS, Loader, Source, make_loader, open_dataset
from fastreg.pipelines.datasets import stored_as
from fastreg.pipelines.file_list import FileList
from fastreg.training.config import Config
from fastreg.training.schedule import train_size
from fastreg.training.setup import resolve_precision

# settings that ranks may have of their own
_OWN = {"data_dir", "device", "workers", "output", "name", "cache_dir", "cache_gb", "log_interval", "profile"}
ALONE = World(0, 1, torch.device("cpu"))


def open_sets(config: Config, world: World = ALONE) -> tuple[Source, Source]:
    """Open the training and the validation set: rank 0 lists them, the other ranks receive the lists.

    Settings that need .beton files (loader "ffcv", order "pages") use the .beton files beside class folders. The
    validation set may lack images of some classes.

    Args:
        config: settings of the run.
        world: this rank.

    Raises:
        InputError: a set is missing, both are one file, or their classes differ.
    """
    sets: list[Source] = []
    with raise_on_all_ranks(world):
        if world.rank == 0:
            sets = _open(config, (None, None))
    if world.size > 1:
        lists = [getattr(source, "files", None) for source in sets] or [None, None]
        dist.broadcast_object_list(lists, src=0)
        with raise_on_all_ranks(world):
            sets = sets or _open(config, lists)
    train_set, val_set = sets
    if world.size > 1:
        _require_equal_ranks(config, train_set, val_set, world)
    return train_set, val_set


def _require_equal_ranks(config: Config, train_set: Source, val_set: Source, world: World) -> None:
    """Refuse ranks with other data or settings before the first step; warn of unequal GPUs."""
    facts = {key: value for key, value in vars(config).items() if key not in _OWN}
    for key, source in (("training data", train_set), ("validation data", val_set)):
        facts |= {key: source.fingerprint, f"number of {key}": len(source)}
    require_equal(world, facts | {"precision": resolve_precision(config.precision, world.device)})
    if world.device.type == "cuda":
        names: list[Any] = [torch.cuda.get_device_name(world.device)] * world.size
        dist.all_gather_object(names, names[0])
        if len(set(names)) > 1 and world.rank == 0:
            other = next(k for k, name in enumerate(names) if name != names[0])
            log.warning(
                "the GPUs differ (%s on rank 0, %s on rank %d): each step waits for the slowest",
                names[0],
                names[other],
                other,
            )


def _open(config: Config, lists: Sequence[FileList | None]) -> list[Source]:
    train_set, val_set = (
        open_dataset(
            config.dataset,
            split,
            config.data_dir,
            beton=config.loader == "ffcv" or config.order == "pages",
            split_name=config.train_split if split == "train" or config.val_share else config.val_split,
            files=files,
            **stored_as(vars(config)),
        )
        for split, files in zip(("train", "val"), lists)
    )
    if config.val_share is None:
        _require_two_files(train_set, val_set)
    strange = sorted(set(val_set.classes) - set(train_set.classes))
    if strange:
        raise InputError(f"the validation set has classes without training images ({', '.join(strange[:5])}).")
    if val_set.classes != train_set.classes:
        val_set.renumber(train_set.classes, {name: k for k, name in enumerate(train_set.classes)})
    trained, validated = (np.bincount(s.labels, minlength=len(s.classes)) > 0 for s in (train_set, val_set))
    untrained = np.flatnonzero(validated & ~trained)
    if len(untrained):
        names = ", ".join(val_set.classes[k] for k in untrained[:5])
        raise InputError(f"the validation set has classes without training images ({names}).")
    return [train_set, val_set]


def _require_two_files(train_set: Source, val_set: Source) -> None:
    one, other = (getattr(source, "path", None) for source in (train_set, val_set))
    if one is not None and other is not None and one.samefile(other):
        raise InputError(
            f"{one} would be both training and validation set: put train.beton and val.beton into one folder and "
            "give that folder, or set `val_share`."
        )
    shards = getattr(train_set, "shards", None)
    if shards is not None and shards == getattr(val_set, "shards", None):
        raise InputError(
            f"the shards of {train_set.root} would be both training and validation set: name them train-* and val-*, "
            "give a pattern with {split}, or set `val_share`."
        )


def make_loaders(
    config: Config, train_set: Source, val_set: Source, world: World, random_crop: bool
) -> tuple[Loader, Loader]:
    """The loaders of both sets; the log names the chosen loader and the reason."""
    common: dict[str, Any] = {"device": world.device, "rank": world.rank, "world": world.size, "seed": config.seed}
    common |= {"batch_size": config.batch_size, "workers": config.workers}
    loader = make_loader(
        train_set,
        loader=config.loader,
        train=True,
        random_crop=random_crop,
        page_order=config.order == "pages",
        shift=config.shift,
        repeats=config.aug_repeats,
        sampler=config.sampler,
        size=train_size(config, 0),
        accumulate=config.grad_accum_steps,
        drop_last=config.drop_last,
        on_bad_image=config.on_bad_image,
        **common,
    )
    log.info("loader %s: %s", loader.name, loader.why)
    name = config.loader
    if name == "ffcv" and not LOADERS[name].reads(val_set.form, train=False):
        name = "folder"
        log.info("loader of the validation set folder: %s contains no val.beton", val_set.root)
    # no on_bad_image: a validation error over fewer images would be mistaken for that of the whole set
    return loader, make_loader(
        val_set,
        loader=name,
        train=False,
        size=config.eval_size,
        resize=1 / config.crop_pct,
        interpolation=config.interpolation,
        **common,
    )


def skipped_images(loader: Loader, world: World) -> dict[str, Any]:
    """Log the images that any rank could not decode, and return their number and names for the log row."""
    shares: list[Any] = [[loader.source.describe(index) for index in loader.skipped]]
    if world.size > 1:
        shares *= world.size
        dist.all_gather_object(shares, shares[0])
    names = sorted({name for share in shares for name in share})
    if names:
        log.info("%d broken images skipped: %s%s", len(names), ", ".join(names[:5]), ", ..." if names[5:] else "")
    return {"skipped": len(names), "skipped_images": names}
