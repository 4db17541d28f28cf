"""The training and the validation set, their loaders, and a report of skipped images."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.log import log
from fastreg.pipelines import LOADERS, Loader, Source, make_loader, open_dataset
from fastreg.training.config import Config
from fastreg.training.schedule import train_size


def open_sets(config: Config) -> tuple[Source, Source]:
    """Open the training and the validation set.

    Settings that need .beton files (loader "ffcv", order "pages") use the .beton files beside class folders.

    Raises:
        InputError: a set is missing, both are one file, or their classes differ.
    """
    beton = config.loader == "ffcv" or config.order == "pages"
    train_set, val_set = (
        open_dataset(config.dataset, split, config.data_dir, beton=beton) for split in ("train", "val")
    )
    one, other = (getattr(source, "path", None) for source in (train_set, val_set))
    if one is not None and other is not None and one.samefile(other):
        raise InputError(
            f"{one} would be both training and validation set: put train.beton and val.beton into one folder, and "
            f"give that folder."
        )
    shards = getattr(train_set, "shards", None)
    if shards is not None and shards == getattr(val_set, "shards", None):
        raise InputError(
            f"the shards of {train_set.root} would be both training and validation set: name them train-* and val-*, "
            f"or give a pattern with {{split}}."
        )
    if val_set.classes != train_set.classes:
        missing = sorted(set(train_set.classes) ^ set(val_set.classes))
        raise InputError(f"training and validation classes of {train_set.root} differ ({', '.join(missing[:5])}).")
    return train_set, val_set


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
    return loader, make_loader(val_set, loader=name, train=False, size=config.eval_size, **common)


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
