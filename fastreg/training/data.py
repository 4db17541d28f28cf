"""What a run reads: its two sets, how each is loaded, and the images that it does without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from fastreg.errors import InputError
from fastreg.pipelines import Loader, Source, make_loader, open_dataset
from fastreg.training.config import Config
from fastreg.training.schedule import train_size


def open_sets(config: Config) -> tuple[Source, Source]:
    """The training and the validation set. Raises InputError when they do not belong together.

    What only .beton files can do (``--loader ffcv``, ``--order pages``) takes those that lie beside class folders.
    """
    beton = config.loader == "ffcv" or config.order == "pages"
    train_set, val_set = (
        open_dataset(config.dataset, split, config.data_dir, beton=beton) for split in ("train", "val")
    )
    one, other = (getattr(source, "path", None) for source in (train_set, val_set))
    if one is not None and other is not None and one.samefile(other):
        raise InputError(
            f"{one} would be both training and validation set: put train.beton and val.beton into one folder, and "
            f"give that."
        )
    if val_set.classes != train_set.classes:
        missing = sorted(set(train_set.classes) ^ set(val_set.classes))
        raise InputError(f"training and validation classes of {train_set.root} differ ({', '.join(missing[:5])}).")
    return train_set, val_set


def make_loaders(
    config: Config, train_set: Source, val_set: Source, place: Any, random_crop: bool, say: Callable[[str], None]
) -> tuple[Loader, Loader]:
    """Their loaders; how each reads goes to ``say``."""
    common = {"device": place.device, "rank": place.rank, "world": place.size, "seed": config.seed}
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
        on_bad_image=config.on_bad_image,
        **common,
    )
    say(f"loader {loader.name}: {loader.why}")
    name = config.loader
    if name == "ffcv" and val_set.root.is_dir():
        name = "folder"
        say(f"loader of the validation set folder: {val_set.root} holds no val.beton")
    # on_bad_image is training's: an error over fewer images would pass for the set's
    return loader, make_loader(val_set, loader=name, train=False, size=config.eval_size, **common)


def left_out(loader: Loader, place: Any, say: Callable[[str], None]) -> dict[str, Any]:
    """For the log: how many images all processes together have left out as broken, and their names."""
    shares: list[Any] = [[loader.source.describe(index) for index in loader.skipped]]
    if place.size > 1:
        shares *= place.size
        dist.all_gather_object(shares, shares[0])
    names = sorted({name for share in shares for name in share})
    if names:
        say(f"{len(names)} broken images left out: {', '.join(names[:5])}{', ...' if names[5:] else ''}")
    return {"skipped": len(names), "skipped_images": names}
