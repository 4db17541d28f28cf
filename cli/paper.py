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
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table1, table2, table3, table4 or figure1.")],
    out: Annotated[Path, typer.Option("--out", help="The image file of figure1.")] = Path("figure1.png"),
    runs: RunsRoot = Path("runs"),
    commands: Annotated[
        bool, typer.Option("--commands", help="Print the commands that train and evaluate the rows.")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="Train and evaluate the rows in turn; resumable.")] = False,
    flags: Annotated[str, typer.Option("--train-flags", help="Further flags for every training command.")] = "",
) -> None:
    """Print the paper's numbers beside those of the runs that exist."""
    from fastreg.report import figure1, paper_commands
    from fastreg.report import paper as print_table

    if commands:
        for words in paper_commands.commands(table, str(runs), flags.split()):
            typer.echo(shlex.join(["fastreg", *words]))
        return
    if run:
        paper_commands.run(table, str(runs), flags.split())
    if table == "figure1":
        typer.echo(f"figure: {figure1(out, runs)}")
    else:
        print_table(table, runs)
