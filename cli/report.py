"""``fastreg report``: an HTML page about evaluated runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app
from fastreg.cli.shared import RunsRoot


@app.command()
def report(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Run folders; default: the newest run.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The .html file; default: beside the scorecard, or above several runs."),
    ] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Write one self-contained HTML page about evaluated runs."""
    from fastreg.report import write_report

    path = write_report(folders or (), out, runs_root=runs)
    typer.echo(f"report: {path}")
