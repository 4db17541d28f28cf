"""``fastreg doctor``: a look at the machine."""

from __future__ import annotations

import typer

from fastreg.cli import app


@app.command()
def doctor() -> None:
    """Say what is installed and found here, and how to get what is missing."""
    from fastreg.doctor import examine

    for what, found, mend in examine():
        typer.echo(f"{what:20} {found}")
        if mend:
            typer.echo(f"{'':20}   -> {mend}")
