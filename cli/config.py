"""``fastreg config``: a recipe as a file of settings."""

from __future__ import annotations

from typing import Annotated

import typer

from fastreg.cli import app


@app.command()
def config(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A name from fastreg recipes.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Print the settings of a recipe as YAML, for fastreg train --config FILE."""
    from fastreg.recipes import ALL, unknown_recipe
    from fastreg.training.config_file import recipe_file

    if recipe not in ALL:
        raise unknown_recipe(recipe, "recipe")
    typer.echo(recipe_file(recipe, as_json), nl=False)
