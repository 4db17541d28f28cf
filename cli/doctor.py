"""``fastreg doctor``: check the installation."""

from __future__ import annotations

import typer

from fastreg.cli import app


@app.command()
def doctor() -> None:
    """Check packages, GPUs, loaders and data sets, and print how to install missing ones."""
    from fastreg.doctor import examine

    for what, found, mend in examine():
        typer.echo(f"{what:20} {found}")
        if mend:
            typer.echo(f"{'':20}   -> {mend}")
