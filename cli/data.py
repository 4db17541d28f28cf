"""``fastreg data``: make, download, check and describe data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fastreg.cli import app
from fastreg.cli.shared import ShardOption
from fastreg.log import printable

data = typer.Typer(help="Make, fetch, check and describe data sets.", no_args_is_help=True)
app.add_typer(data, name="data")

Name = Annotated[str, typer.Argument(metavar="DATASET", help="imagenet, cifar100 ... or a path.")]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="Folder, file, pattern of shards, or address.")]
ImageKey = Annotated[str | None, typer.Option("--image-key", help="Shards: extension or column of the image.")]
LabelKey = Annotated[str | None, typer.Option("--label-key", help="Shards: extension, JSON field or column.")]
Workers = Annotated[int | None, typer.Option("-j", "--workers", help="Threads.")]


@data.command()
def sample(
    name: Annotated[str, typer.Argument(metavar="imagenet|cifar100")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default data/NAME.")] = None,
) -> None:
    """Write a small set of real images in the layout of ImageNet or CIFAR-100."""
    from fastreg.pipelines import write_sample

    made = write_sample(name, out)
    typer.echo(f"{made['path']}: {made['classes']} classes, {made['train']} + {made['val']} images (sample data)")


@data.command()
def prepare(
    name: Annotated[str, typer.Argument(metavar="imagenet")],
    source_dir: Annotated[str, typer.Option("--from", help="Folder of train/ and val/, class folders, or shards.")],
    to: Annotated[Path, typer.Option("--to", help="The .beton file to write.")],
    split: Annotated[
        str | None, typer.Option("--split", help="train or val; default: a word of the file's or folder's name.")
    ] = None,
    max_res: Annotated[int, typer.Option("--max-res", help="Longest side in pixels; 0: any.")] = 500,
    jpeg_prob: Annotated[float, typer.Option("--jpeg-prob", help="Share of images stored as JPEG.")] = 0.5,
    quality: Annotated[
        int, typer.Option("--quality", help="JPEG quality; 0: the file's own bytes if nothing has to change.")
    ] = 90,
    raw: Annotated[int | None, typer.Option("--raw", help="Store square canvases of this side instead.")] = None,
    workers: Workers = None,
    on_bad_image: Annotated[str, typer.Option("--on-bad-image", help="error or skip.")] = "error",
    image_key: ImageKey = None,
    label_key: LabelKey = None,
    shard: ShardOption = None,
) -> None:
    """Write a .beton file; the same command continues a stopped one."""
    from fastreg.pipelines.prepare import write_beton
    from fastreg.shard import missing_shards

    made = write_beton(
        name,
        source_dir,
        to,
        split=split,
        max_res=max_res or None,
        jpeg_prob=jpeg_prob,
        quality=quality or None,
        raw=raw,
        workers=workers,
        on_bad_image=on_bad_image,
        image_key=image_key,
        label_key=label_key,
        shard=shard,
    )
    skipped = f", {made['skipped']:,} broken images left out" if made["skipped"] else ""
    typer.echo(
        f"{made['path']}: {made['split']} split, {made['images']:,} images, {made['bytes'] / 1e6:,.1f} MB{skipped}"
    )
    if shard:
        left = [] if to.exists() else missing_shards(to)
        typer.echo(f"shards not finished: {', '.join(left)}" if left else f"all shards are finished: {to}")


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="cifar10|cifar100|svhn|odin|frost")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default $FASTREG_DATA or data.")] = None,
    mirror: Annotated[str | None, typer.Option("--mirror", help="Base address of the same files.")] = None,
) -> None:
    """Download a published set and verify its checksums; the same command continues a stopped one."""
    from fastreg.pipelines.fetch import fetch_files

    made = fetch_files(name, out, mirror=mirror)
    typer.echo(f"{made['path']}: " + (f"fetched {', '.join(made['fetched'])}" if made["fetched"] else "all there"))


@data.command()
def verify(
    name: Name,
    data_dir: DataDir = None,
    workers: Workers = None,
    image_key: ImageKey = None,
    label_key: LabelKey = None,
) -> None:
    """Decode every sample and list the broken ones (exit code 1 if there are any)."""
    from fastreg.pipelines.verify_data import verify as check

    found = check(name, data_dir, workers, image_key=image_key, label_key=label_key)
    for where, why in found["broken"]:
        typer.echo(printable(f"{where}: {why}"))
    for how, count in found.get("scaled", {}).items():
        typer.echo(f"{count:,} images are read as {how}")
    typer.echo(f"{found['checked']:,} samples, {len(found['broken']):,} broken")
    raise typer.Exit(1 if found["broken"] else 0)


@data.command()
def info(name: Name, data_dir: DataDir = None, image_key: ImageKey = None, label_key: LabelKey = None) -> None:
    """Describe a data set: its folder, splits, classes, sizes, formats and fingerprint.

    "natural" and "ood" list the sets of these suites: their sources, and the folders that are looked for. "imagenet-p"
    and "cifar-p" describe the files of these suites.
    """
    if name == "natural":
        _print_sets(data_dir)
        return
    if name == "ood":
        from fastreg.evaluation.ood_sets import describe_sets

        typer.echo(describe_sets())
        return
    from fastreg.pipelines.sequence_sets import SEQUENCE_SETS

    if name in SEQUENCE_SETS:
        for fact, text in SEQUENCE_SETS[name]._asdict().items():
            typer.echo(f"{fact}: {text}")
        return
    from fastreg.pipelines.verify_data import info as describe

    _print_info(describe(name, data_dir, image_key=image_key, label_key=label_key))


def _print_sets(data_dir: str | Path | None) -> None:
    """The natural test sets, with their address, archive and folder."""
    from rich.console import Console
    from rich.table import Table

    from fastreg.pipelines.natural_sets import natural_info

    rows = natural_info(data_dir)
    table = Table("", "images", "classes", "found at")
    for row in rows:
        table.add_row(row["set"], f"{row['images']:,}", f"{row['classes']:,}", str(row["found"] or "–"))
    console = Console()
    console.print(table)
    for row in rows:
        line = f"{row['set']}: {row['address']} ({row['archive']}), unpacked as {row['folder']}/"
        console.print(line, soft_wrap=True, highlight=False)


def _print_info(found: dict[str, Any]) -> None:
    """A table with a column for each split."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    where = f"{found['name']} at {found['path']}{' (sample data)' if found['sample'] else ''}"
    console.print(where, soft_wrap=True, markup=False, highlight=False)
    splits = found["splits"]
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "images": lambda facts: f"{facts['images']:,}",
        "classes": lambda facts: f"{facts['classes']:,}",
        "images per class": lambda facts: _range(facts["per_class"]),
        "width, px": lambda facts: _range(facts["width"]),
        "height, px": lambda facts: _range(facts["height"]),
        "formats": lambda facts: ", ".join(f"{name} {count:,}" for name, count in facts["formats"].items()),
        "fingerprint": lambda facts: facts["fingerprint"].replace(", ", "\n"),
    }
    table = Table("", *splits)
    for name, text in rows.items():
        table.add_row(name, *(text(facts) for facts in splits.values()))
    console.print(table)
    most = max(sum(facts["formats"].values()) for facts in splits.values())
    console.print(f"Widths, heights and formats: up to {most} images of a split.", soft_wrap=True, highlight=False)


def _range(values: tuple[float, ...]) -> str:
    """Least, most and median as text."""
    if not values:
        return ""
    least, median, most = values
    return f"{least:,g}" if least == most else f"{least:,g} to {most:,g}, median {median:,g}"
