"""``fastreg show``: images of what an operation does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app

show = typer.Typer(help="Show what an operation does to an image.", no_args_is_help=True)
app.add_typer(show, name="show")


@show.command("corruptions")
def show_corruptions(
    image: Annotated[Path, typer.Argument(help="A photograph.")],
    out: Annotated[Path, typer.Option("--out", help="The picture to write.")] = Path("corruptions.png"),
    corruption: Annotated[str, typer.Option("--corruption", help="all, or names joined by commas.")] = "all",
    size: Annotated[int, typer.Option("--size", help="Pixels.")] = 224,
    constants: Annotated[str, typer.Option("--constants", help="auto goes by size.")] = "auto",
    frost_dir: Annotated[Path | None, typer.Option("--frost-dir", help="The frost photographs.")] = None,
    jpeg: Annotated[bool, typer.Option("--jpeg", help="With ImageNet-C's final JPEG step.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Key of every random draw.")] = 0,
) -> None:
    """Draw a photograph under all 19 corruptions, or some, at five severities."""
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
