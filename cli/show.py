"""``fastreg show``: the effect of an operation, as an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app
from fastreg.cli.shared import Corruptions

show = typer.Typer(help="Draw the effect of an operation on an image.", no_args_is_help=True)
app.add_typer(show, name="show")


@show.command("corruptions")
def show_corruptions(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    out: Annotated[Path, typer.Option("--out", help="The image file to write.")] = Path("corruptions.png"),
    corruption: Corruptions = "all",
    size: Annotated[int, typer.Option("--size", help="Side of each image in pixels.")] = 224,
    constants: Annotated[
        str, typer.Option("--constants", help="imagenet224, imagenet299, tiny64, cifar32; auto: by nearest size.")
    ] = "auto",
    frost_dir: Annotated[Path | None, typer.Option("--frost-dir", help="Folder of the frost images.")] = None,
    jpeg: Annotated[bool, typer.Option("--jpeg", help="Add ImageNet-C's final JPEG step.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of every random draw.")] = 0,
) -> None:
    """Draw an image under the corruptions of ImageNet-C at five severities."""
    from fastreg.report import contact_sheet

    contact_sheet(
        image,
        out,
        corruptions=None if corruption == "all" else corruption,
        size=size,
        constants=constants,
        frost_dir=frost_dir,
        jpeg=jpeg,
        seed=seed,
        strict=True,
    )
    typer.echo(f"contact sheet: {out}")
