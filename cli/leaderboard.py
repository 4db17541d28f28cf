"""``fastreg leaderboard``: rank evaluated runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app
from fastreg.cli.shared import RunsRoot


@app.command()
def leaderboard(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Run folders; default: all evaluated runs.")
    ] = None,
    sort_by: Annotated[
        str | None, typer.Option("--sort-by", help="Figure that ranks, such as clean_error or mce.")
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="CSV of other models' errors in percent, for effective robustness."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the files; default: --runs.")] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Rank evaluated runs: a sortable HTML page, CSV and JSON."""
    from fastreg.report import print_leaderboard, write_leaderboard

    rankings = write_leaderboard(folders or (), out, sort_by=sort_by, baseline=baseline, runs_root=runs)
    print_leaderboard(rankings)
    typer.echo(f"leaderboard: {(out or runs) / 'leaderboard.html'}")
