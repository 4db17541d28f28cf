"""``fastreg data``: make, find and check data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app

data = typer.Typer(help="Make, fetch, check and describe data sets.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command()
def sample(
    name: Annotated[str, typer.Argument(metavar="imagenet|cifar100")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default data/NAME.")] = None,
) -> None:
    """Write a small set of real photographs in the true layout."""
    from fastreg.pipelines import write_sample

    made = write_sample(name, out)
    typer.echo(f"{made['path']}: {made['classes']} classes, {made['train']} + {made['val']} images (sample data)")
