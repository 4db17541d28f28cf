"""``fastreg corrupt``: write a corrupted copy of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app
from fastreg.cli.shared import Corruptions, CropPct, Severities, ShardOption


@app.command()
def corrupt(
    src: Annotated[str, typer.Argument(metavar="SRC", help="A data set's name, or a folder of images or CIFAR.")],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write.")],
    corruptions: Corruptions = "all",
    severities: Severities = "all",
    split: Annotated[str, typer.Option("--split", help="train or val.")] = "val",
    train_split: Annotated[str | None, typer.Option("--train-split", help="Its name, in names of folders.")] = None,
    val_split: Annotated[str | None, typer.Option("--val-split", help="The same of the validation split.")] = None,
    val_share: Annotated[float | None, typer.Option("--val-share", help="Share of the training split.")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Root of the data set named SRC.")] = None,
    size: Annotated[int | None, typer.Option("--size", help="Pixels; default 224, CIFAR 32.")] = None,
    crop_pct: CropPct = 224 / 256,
    constants: Annotated[str, typer.Option("--constants", help="auto goes by size.")] = "auto",
    frost_dir: Annotated[Path | None, typer.Option("--frost-dir", help="Folder of the frost images.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Key of every random draw.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int, typer.Option("-b", "--batch-size", help="Images corrupted at once.")] = 64,
    workers: Annotated[int | None, typer.Option("-j", "--workers", help="Threads.")] = None,
    shard: ShardOption = None,
) -> None:
    """Write ImageNet-C's folders, or CIFAR-C's arrays, of your images; a stopped command continues."""
    from fastreg.evaluation.corrupt_dataset import corrupt_dataset
    from fastreg.evaluation.corrupted_manifest import read_manifest, unfinished_shards

    rows = corrupt_dataset(
        src,
        dst,
        corruptions=corruptions,
        severities=severities,
        split=split,
        train_split=train_split,
        val_split=val_split,
        val_share=val_share,
        data_dir=data_dir,
        size=size,
        crop_pct=crop_pct,
        constants=constants,
        frost_dir=frost_dir,
        seed=seed,
        device=device,
        batch_size=batch_size,
        workers=workers,
        shard=shard,
    )
    share = f"shard {shard}, " if shard else ""
    typer.echo(f"{dst}: {share}{len(rows)} {'condition' if len(rows) == 1 else 'conditions'}, each read back")
    if shard:
        left = unfinished_shards(read_manifest(dst) or {"shards": None})
        typer.echo(f"shards not finished: {', '.join(left)}" if left else "all shards are finished")
