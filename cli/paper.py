"""``fastreg paper``: the paper's tables beside the runs that exist."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app
from fastreg.cli.shared import RunsRoot


@app.command()
def paper(
    table: Annotated[str, typer.Argument(help="table1, table2, table3, table4 or figure1.")],
    out: Annotated[Path, typer.Option("--out", help="Picture of figure1.")] = Path("figure1.png"),
    runs: RunsRoot = Path("runs"),
    commands: Annotated[bool, typer.Option("--commands", help="Print what would train and evaluate its rows.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Train and evaluate its rows in turn; resumable.")] = False,
    flags: Annotated[str, typer.Option("--train-flags", help="Further flags of every training.")] = "",
) -> None:
    """Print the paper's numbers beside the runs that exist."""
    from fastreg.report import figure1
    from fastreg.report import paper as print_table
    from fastreg.report import paper_commands as rows

    if commands:
        for words in rows.commands(table, str(runs), flags.split()):
            typer.echo(shlex.join(["fastreg", *words]))
        return
    if run:
        rows.run(table, str(runs), flags.split())
    if table == "figure1":
        typer.echo(f"figure: {figure1(out, runs)}")
    else:
        print_table(table, runs)
