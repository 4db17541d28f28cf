"""``fastreg recipes``: the named recipes."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from typing import Annotated

import typer

from fastreg.cli import app


@app.command()
def recipes(
    pattern: Annotated[str, typer.Argument(metavar="[NAME]", help="A recipe, or a word in several names.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print all settings as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the paper's rows as a Markdown table.")] = False,
) -> None:
    """List the recipes in groups, or all settings of one."""
    from fastreg.recipes import ALL, unknown_recipe
    from fastreg.training.recipe_table import recipe_lines, recipe_settings, recipe_table

    if markdown:
        typer.echo(recipe_table(), nl=False)
        return
    chosen = [pattern] if pattern in ALL else [name for name in ALL if pattern in name]
    if not chosen:
        raise unknown_recipe(pattern, "recipe")
    if as_json:
        typer.echo(json.dumps({name: recipe_settings(name) for name in chosen}, indent=2))
    elif len(chosen) == 1:
        typer.echo(recipe_lines(chosen[0]))
    else:
        _print_groups(chosen)
        typer.echo(
            "fastreg recipes NAME prints all settings of one; fastreg train DATASET --recipe NAME trains with it."
        )


def _print_groups(names: list[str]) -> None:
    """One line of shared settings per group of names, then the names, each with the settings that differ."""
    groups: dict[str, dict[str, dict[str, str]]] = {}
    for name in names:
        group, _, last = name.rpartition("/")
        groups.setdefault(group, {})[last] = _key_settings(name)
    for group, rows in groups.items():
        fields = next(iter(rows.values()))
        shared = {}
        for field in fields:
            value, count = Counter(row[field] for row in rows.values()).most_common(1)[0]
            if count > 1 or len(rows) == 1:
                shared[field] = value
        typer.echo(f"{group}: {', '.join(shared.values())}")
        entries = []
        for last, row in rows.items():
            own = ", ".join(row[field] for field in fields if row[field] != shared.get(field))
            entries.append(f"{last} ({own})".replace(" ", "\0") if own else last)
        joined = "  ".join(entries)
        lines = textwrap.wrap(joined, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        typer.echo("\n".join(lines).replace("\0", " ") + "\n")


def _key_settings(name: str) -> dict[str, str]:
    from fastreg.training.recipe_table import recipe_config

    config = recipe_config(name)
    return {
        "model": config.model,
        "size": f"{config.size} px",
        "epochs": f"{config.epochs} epochs",
        "batch": f"batch {config.global_batch}",
        "rate": f"{config.opt} lr {config.lr:g}",
        "sched": config.sched,
    }
