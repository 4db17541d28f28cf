"""A scorecard in the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from fastreg.evaluation.scorecard import Scorecard
from fastreg.evaluation.suites import CORRUPTED, SEVERITIES, SUITES, resolve
from fastreg.report.figures_table import FIGURES
from fastreg.report.scores import cell


def print_scorecard(card: Scorecard, suites: str | Iterable[str] = SUITES) -> None:
    """Print a card's totals and notes, and of ``suites`` corruptions by severity and out-of-distribution sets."""
    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes speaks
    from rich.console import Console
    from rich.table import Table

    console = Console()
    summary = card.summary()
    data, model = card.data, card.model["name"]
    stamp = " (sample)" if card.sample else ""
    table = Table(title=f"{model} on {data['name']} {data['split']}{stamp}, n = {data['n']:,}, {data['size']} px")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim")
    for key, (heading, meaning, _) in FIGURES.items():
        if key in summary:
            table.add_row(heading, f"{summary[key]:.2f}", meaning)
    console.print(table)
    wanted = resolve(suites, card.data["size"], card.data["name"])
    for suite in CORRUPTED:
        errors = card.severity_errors(suite)
        if errors and suite in wanted:
            console.print(_severities(suite, card.suites[suite]["settings"], errors, Table))
    if "ood" in wanted and (rows := card.results("ood")):
        console.print(_detection(rows, Table))
    for note in card.notes():
        console.print(f"[yellow]{note}[/]", soft_wrap=True)


def _detection(rows: dict[str, dict[str, Any]], table_class: Any) -> Any:
    table = table_class(title="ood: telling each set from the data, in percent")
    table.add_column("set")
    for heading in ("images", "detection error", "AUROC", "FPR at 95 % TPR"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        table.add_row(name, f"{row['n']:,}", *(cell(row[key]) for key in ("detection_error", "auroc", "fpr95")))
    return table


def _severities(suite: str, settings: dict[str, Any], errors: dict[str, dict[int, float]], table_class: Any) -> Any:
    how = ", ".join(str(settings[key]) for key in ("from", "fidelity", "constants") if settings.get(key))
    table = table_class(title=f"{suite}: top-1 error in percent ({how})")
    for heading in ("corruption", *map(str, SEVERITIES), "mean"):
        table.add_column(heading, justify="left" if heading == "corruption" else "right")
    for name, by_severity in errors.items():
        cells = [f"{by_severity[s]:.1f}" if s in by_severity else "-" for s in SEVERITIES]
        mean = sum(by_severity.values()) / len(by_severity)
        table.add_row(name, *cells, f"{mean:.1f}" if len(by_severity) == len(SEVERITIES) else "-")
    return table
