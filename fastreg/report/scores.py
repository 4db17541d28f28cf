"""The score table: runs and the paper's rows with their methods, as cells, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from fastreg.report.figures_table import FIGURES, legend
from fastreg.report.paper_rows import MEASURED
from fastreg.report.provenance import FACTS, facts, provenance
from fastreg.report.run_folder import Run

OTHERWISE = ("trained_otherwise", "measured_otherwise")  # than in the paper: columns of the CSV


def score_table(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, Any]:
    """Headings and rows: each run, followed by the paper's row with its methods.

    A figure that the paper measures otherwise is marked in ``marked`` and left out of the paper's row. A run that was
    trained otherwise has the differing settings in ``trained``, and no differences from the paper's figures.
    ``departures`` explains both.

    Args:
        runs: the runs.
        keys: summary keys of the columns.
    """
    rows: list[dict[str, Any]] = []
    departures: list[str] = []
    for run in runs:
        summary, published = run.card.summary(), run.paper_row()
        printed = {key: value for key, value in (published[1] if published else {}).items() if key in keys}
        same = {key: value for key, value in printed.items() if not run.departs(key)}
        departures += [f"measured otherwise than in the paper: {why}" for why in run.departures(list(printed))]
        differs = run.trained_otherwise() if printed else ""
        if differs and published:
            departures.append(f"trained otherwise than the paper's {published[0]}: {run.name}: {differs}")
        rows.append(
            {
                "kind": "run",
                "name": run.name,
                "method": run.method,
                "n": run.card.data["n"],
                "sample": run.card.sample,
                "trained": differs,
                "measured": run.measured_otherwise(list(printed)),
                "cells": [summary.get(key) for key in keys],
                "marked": [key in summary and key in printed and key not in same for key in keys],
                "differences": [
                    summary[k] - same[k] if not differs and k in summary and k in same else None for k in keys
                ],
            }
        )
        if published and same:
            rows.append(
                {
                    "kind": "paper",
                    "name": "paper",
                    "method": published[0],
                    "n": MEASURED[run.dataset][0],
                    "sample": False,
                    "trained": "",
                    "measured": "",
                    "cells": [same.get(key) for key in keys],
                    "marked": [False] * len(keys),
                    "differences": [],
                }
            )
    return {
        "keys": keys,
        "headings": [FIGURES[key][:2] for key in keys],
        "legend": legend(keys),
        "departures": departures,
        "rows": rows,
    }


def cell(value: float | None, marked: bool = False) -> str:
    """A figure as text, with a star if it is marked."""
    return "–" if value is None else f"{value:.2f}{'*' if marked else ''}"


def markdown(runs: Sequence[Run], table: dict[str, Any]) -> str:
    """The score table, the notes and the provenance as Markdown."""
    headings = [heading for heading, _ in table["headings"]]
    text = [_row("run", "method", "n", *headings), "|---|---|---:|" + "---:|" * len(headings)]
    for row in table["rows"]:
        name = f"*{row['name']}*" if row["kind"] == "paper" else row["name"] + "\\*" * bool(row["trained"])
        name += " (sample)" if row["sample"] else ""
        cells = [cell(*pair) for pair in zip(row["cells"], row["marked"])]
        text.append(_row(name, row["method"], f"{row['n']:,}", *cells))
    text += ["", *(f"* {headings}: {meaning}" for headings, meaning in table["legend"]), ""]
    text += [f"* \\* {why}" for why in table["departures"]]
    text += [f"* {run.name}: {note}" for run in runs for note in run.card.notes()]
    for run in runs:
        known = [_row(what, value) for what, value in provenance(run)]
        text += ["", f"## {run.name}", "", _row("what", "value"), "|---|---|", *known]
    return "\n".join(text) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def comma_separated(runs: Sequence[Run], table: dict[str, Any]) -> str:
    """The score table as CSV in full precision, with summary keys as headings and the provenance of each row."""
    known = {run.name: facts(run) for run in runs}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["run", "method", "n", "sample", *table["keys"], *OTHERWISE, *FACTS])
    for row in table["rows"]:
        own = known[row["name"]] if row["kind"] == "run" else {}
        cells = [*row["cells"], row["trained"], row["measured"], *(own.get(fact) for fact in FACTS)]
        writer.writerow([row["name"], row["method"], row["n"], row["sample"], *("" if c is None else c for c in cells)])
    return buffer.getvalue()
