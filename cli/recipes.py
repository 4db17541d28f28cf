"""``fastreg recipes``: the named recipes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fastreg.cli import app


@app.command()
def recipes(
    pattern: Annotated[str, typer.Argument(help="Show only names that contain this.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the resolved settings as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the paper's rows as a table.")] = False,
) -> None:
    """List the named recipes with their settings."""
    from fastreg.errors import unknown
    from fastreg.recipes import ALL
    from fastreg.training.recipe_table import recipe_lines, recipe_settings, recipe_table

    if markdown:
        typer.echo(recipe_table(), nl=False)
        return
    chosen = [name for name in ALL if pattern in name]
    if not chosen:
        raise unknown("recipe", pattern, ["auto", *sorted({name.rsplit("/", 1)[0] for name in ALL})])
    if as_json:
        typer.echo(json.dumps({name: recipe_settings(name) for name in chosen}, indent=2))
    else:
        typer.echo("\n".join(map(recipe_lines, chosen)))
