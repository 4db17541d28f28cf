"""A scorecard in the terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType

from fastreg.evaluation.scorecard import Scorecard
from fastreg.evaluation.suites import ROWS, resolve
from fastreg.evaluation.types import Table
from fastreg.report.figures_table import COLUMNS, FIGURES, UNFIT
from fastreg.report.leaderboard import EFFECTIVE, Ranking
from fastreg.report.run_folder import Run
from fastreg.report.scores import cell, from_the_code, interval_text, reasons
from fastreg.report.spread import intervals

NO_FLAGS: Mapping[str, str] = MappingProxyType({})


def print_scorecard(
    card: Scorecard, suites: str | Iterable[str] = tuple(ROWS), flags: Mapping[str, str] = NO_FLAGS
) -> None:
    """Print the totals and notes of a scorecard, and the tables of some suites.

    Args:
        card: the scorecard.
        suites: names of the suites whose tables are printed; a list, or one string joined by commas.
        flags: names that notes print in place of parameters in backquotes.

    Raises:
        InputError: an unknown suite.
    """
    if os.environ.get("RANK", "0") != "0":
        return  # rank 0 prints
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(markup=False)  # names come from files
    summary = card.summary()
    data, model = card.data, card.model["name"]
    stamp = " (sample)" if card.sample else ""
    table = RichTable(title=f"{model} on {data['name']} {data['split']}{stamp}, n = {data['n']:,}, {data['size']} px")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("meaning", style="dim")
    run = Run(model, Path(), card, {}, [])
    label, printed = run.paper_row() or ("", {})
    printed = {key: value for key, value in printed.items() if key in summary}
    if printed:
        table.add_column(f"paper: {label}{'*' if run.trained_otherwise() else ''}", justify="right", style="dim")
    for key, (heading, meaning, _) in FIGURES.items():
        if key in summary:
            departs = key in printed and run.departs(key)
            beside = [cell(None if departs else printed.get(key))] if printed else []
            spread = interval_text(*intervals(run, [key]))
            unfit = f"; {UNFIT}" if card.sample and not COLUMNS[key][0].on_sample else ""
            table.add_row(heading, cell(summary[key], bool(departs)), spread, f"{meaning}{unfit}", *beside)
    console.print(table)
    for why in reasons([run], {model: list(printed)}):
        console.print(f"* {why}.", soft_wrap=True, markup=False, highlight=False)
    for what in from_the_code([run]):
        console.print(f"{what}.", soft_wrap=True, markup=False, highlight=False)
    for suite in resolve(suites, data["size"], data["name"]):
        for rows in ROWS[suite].tables(card, suite):
            table = RichTable(title=rows.title)
            for index, heading in enumerate(rows.headings):
                table.add_column(heading, justify="right" if index else "left")
            for row in rows.rows:
                table.add_row(*(_cell(value, rows) for value in row))
            console.print(table)
    for note in card.notes():
        text = re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), note)
        console.print(text, style="yellow", soft_wrap=True, markup=False, highlight=False)


def print_leaderboard(rankings: Sequence[Ranking]) -> None:
    """Print ranked tables, one per data set, with the figures that fit in the terminal's width.

    Args:
        rankings: of :func:`fastreg.report.write_leaderboard`.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = Console()
    for ranking in rankings:
        columns: list[tuple[str, list[str]]] = [("run", [run.name for run in ranking.runs])]
        columns.append(("method", [run.method for run in ranking.runs]))
        summaries = [run.card.summary() for run in ranking.runs]
        for key in dict.fromkeys((*filter(None, [ranking.ranked]), *ranking.keys)):
            marks = [key in summary and bool(run.altered(key)) for run, summary in zip(ranking.runs, summaries)]
            columns.append((FIGURES[key][0], [cell(s.get(key), mark) for s, mark in zip(summaries, marks)]))
        for key, own in ranking.effective.items():
            found = [own.get(run.name) for run in ranking.runs]
            signed = ["–" if value is None else f"{value:+.2f}" for value in found]
            columns.append((f"{FIGURES[key.removeprefix(EFFECTIVE)][0]}, effective", signed))
        widths = [max(map(len, (heading, *cells))) + 3 for heading, cells in columns]
        fit = max(3, sum(width <= console.width - 6 for width in accumulate(widths)))
        table = RichTable(title=escape(ranking.data))
        table.add_column("")
        for index, (heading, _) in enumerate(columns[:fit]):
            table.add_column(heading, justify="right" if index > 1 else "left", overflow="fold")
        for rank, row in enumerate(zip(*(cells for _, cells in columns[:fit])), 1):
            table.add_row(str(rank), *map(escape, row))
        console.print(table)
        for run, summary in zip(ranking.runs, summaries):
            for why in dict.fromkeys(run.altered(key) for key in ranking.keys if key in summary and run.altered(key)):
                console.print(f"* {run.name}: {why}.", soft_wrap=True, markup=False, highlight=False)


def _cell(value: str | float | None, table: Table) -> str:
    return value if isinstance(value, str) else "–" if value is None else f"{value:.{table.digits}f}"
