"""The score table: runs, means over seeds and the paper's rows, as cells, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastreg.report.figures_table import COLUMNS, FIGURES, UNFIT, legend
from fastreg.report.paper_rows import MEASURED
from fastreg.report.provenance import FACTS, facts, provenance
from fastreg.report.run_folder import Run
from fastreg.report.spread import by_seed, intervals, over_seeds, seeds_name

OTHERWISE = ("trained_otherwise", "measured_otherwise")  # than in the paper: columns of the CSV
INTERVALS = "Wilson's 95 % interval of a share of n images; of a mean over corruptions an upper bound of its width"
OVER_SEEDS = "mean and sample standard deviation of runs that differ in the training seed alone"


class ScoreRow(NamedTuple):
    """A row of the score table. Lists have one entry per column.

    Args:
        kind: "run", "seeds" (a mean over seeds) or "paper".
        name: of the run.
        method: methods and label smoothing.
        n: number of images.
        data: name and split of the data.
        cells: the figures.
        marked: whether the paper measures the figure otherwise.
        intervals: 95 % intervals.
        deviations: standard deviations over seeds.
        differences: from the paper's figures.
        sample: whether the data is sample data.
        trained: the settings that differ from the recipe of the paper's row.
        measured: the differences of measurement from the paper.
        unfit: whether the figure cannot be judged on the row's data.
    """

    kind: str
    name: str
    method: str
    n: int
    data: str
    cells: Sequence[float | None]
    marked: Sequence[bool] = ()
    intervals: Sequence[tuple[float, float] | None] = ()
    deviations: Sequence[float | None] = ()
    differences: Sequence[float | None] = ()
    sample: bool = False
    trained: str = ""
    measured: str = ""
    unfit: Sequence[bool] = ()

    def small(self, column: int) -> str:
        """The interval or the standard deviation of a figure as text; empty without one."""
        if self.deviations and self.deviations[column] is not None:
            return f"± {self.deviations[column]:.2f}"
        return interval_text(self.intervals[column]) if self.intervals else ""


class ScoreTable(NamedTuple):
    """Rows with the summary keys, the headings and the legend of their columns, and the reasons of the stars.

    ``from_the_code``: what the runs' training leaves different from the original code, with or without a star.
    """

    keys: Sequence[str]
    headings: Sequence[tuple[str, str]]
    legend: Sequence[tuple[str, str]]
    rows: Sequence[ScoreRow]
    departures: Sequence[str]
    from_the_code: Sequence[str]


def score_table(runs: Sequence[Run], keys: Sequence[str]) -> ScoreTable:
    """Each run, the mean of runs that differ in the seed alone, and below them the paper's row with their methods.

    A figure that the paper measures otherwise is marked and left out of the paper's row. A run that was trained
    otherwise has no differences from the paper's figures.

    Args:
        runs: the runs.
        keys: summary keys of the columns.
    """
    rows: list[ScoreRow] = []
    departures: list[str] = []
    for group in by_seed(runs):
        own = [_run_row(run, keys, alone=len(group) == 1) for run in group]
        rows += own
        departures += reasons(group, {run.name: list(_printed(run, keys)) for run in group})
        if len(group) > 1:
            rows.append(_seeds_row(group, own, keys))
        same = _measured_alike(group[0], keys)
        if same:
            title, n = group[0].paper_title(), MEASURED[group[0].dataset][0]
            rows.append(ScoreRow("paper", "paper", title, n, "", [same.get(key) for key in keys]))
    return ScoreTable(keys, [FIGURES[key][:2] for key in keys], legend(keys), rows, departures, from_the_code(runs))


def _run_row(run: Run, keys: Sequence[str], alone: bool) -> ScoreRow:
    """``alone``: the differences from the paper are in this row, not in that of the mean over seeds."""
    summary, printed, same = run.card.summary(), _printed(run, keys), _measured_alike(run, keys)
    trained = run.trained_otherwise()
    compared = alone and not trained
    return ScoreRow(
        "run",
        run.name,
        run.method,
        run.card.data["n"],
        run.data_name,
        [summary.get(key) for key in keys],
        [key in summary and key in printed and key not in same for key in keys],
        intervals(run, keys),
        differences=[summary[k] - same[k] if compared and k in summary and k in same else None for k in keys],
        sample=run.card.sample,
        trained=trained,
        measured=run.measured_otherwise(list(printed)),
        unfit=[run.card.sample and key in summary and not COLUMNS[key][0].on_sample for key in keys],
    )


def _seeds_row(group: Sequence[Run], own: Sequence[ScoreRow], keys: Sequence[str]) -> ScoreRow:
    found = over_seeds(group, keys)
    cells = [pair and pair[0] for pair in found]
    same = _measured_alike(group[0], keys)
    compared = not any(row.trained for row in own)
    differences = [c - same[k] if compared and c is not None and k in same else None for k, c in zip(keys, cells)]
    return own[0]._replace(
        kind="seeds",
        name=seeds_name(group),
        cells=cells,
        marked=[any(marks) for marks in zip(*(row.marked for row in own))],
        intervals=(),
        deviations=[pair and pair[1] for pair in found],
        differences=differences,
        trained="; ".join(dict.fromkeys(row.trained for row in own if row.trained)),
    )


def _printed(run: Run, keys: Sequence[str]) -> dict[str, float]:
    """The figures of the paper's row with a run's methods."""
    row = run.paper_row()
    return {key: value for key, value in row[1].items() if key in keys} if row else {}


def _measured_alike(run: Run, keys: Sequence[str]) -> dict[str, float]:
    return {key: value for key, value in _printed(run, keys).items() if not run.departs(key)}


def reasons(runs: Sequence[Run], keys: Mapping[str, Sequence[str]]) -> list[str]:
    """The reasons of the stars of runs and of their figures.

    Args:
        runs: the runs; those trained otherwise in the same way share a reason.
        keys: for each run's name the figures that the paper prints.
    """
    found = [f"measured otherwise than in the paper: {why}" for run in runs for why in run.departures(keys[run.name])]
    trained: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        if why := run.trained_otherwise():
            trained.setdefault((run.paper_title(), why), []).append(run.name)
    found += [
        f"trained otherwise than the paper's {title}: {', '.join(names)}: {why}"
        for (title, why), names in trained.items()
    ]
    return found


def from_the_code(runs: Sequence[Run]) -> list[str]:
    """The topics in which the training of runs differs from the original code; runs of the same topics share a line."""
    topics: dict[str, list[str]] = {}
    for run in runs:
        if found := run.from_the_code():
            topics.setdefault(found, []).append(run.name)
    return [
        f"{', '.join(names)}: a recipe's training differs from the original code in {found} (docs/departures.md)"
        for found, names in topics.items()
    ]


def cell(value: float | None, marked: bool = False) -> str:
    """A figure as text, with a star if it is marked."""
    return "–" if value is None else f"{value:.2f}{'*' if marked else ''}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """``19.65–20.35``; empty without an interval."""
    return f"{interval[0]:.2f}–{interval[1]:.2f}" if interval else ""


def markdown(runs: Sequence[Run], table: ScoreTable) -> str:
    """The score table, the notes and the provenance as Markdown."""
    headings = [heading for heading, _ in table.headings]
    text = [_row("run", "method", "data", "n", *headings), "|---|---|---|---:|" + "---:|" * len(headings)]
    for row in table.rows:
        name = f"*{row.name}*" if row.kind == "paper" else row.name + "\\*" * bool(row.trained)
        name += " (sample)" if row.sample else ""
        cells = [_with_spread(row, column) for column in range(len(headings))]
        text.append(_row(name, row.method, row.data, f"{row.n:,}", *cells))
    text += ["", *(f"* {headings}: {meaning}" for headings, meaning in table.legend), f"* in brackets: {INTERVALS}"]
    text += [f"* ±: {OVER_SEEDS}"] * any(row.kind == "seeds" for row in table.rows) + [""]
    text += [f"* \\* {why}" for why in table.departures]
    text += [f"* {what}" for what in table.from_the_code]
    text += [f"* {run.name}: {note}" for run in runs for note in run.card.notes()]
    for run in runs:
        known = [_row(what, value) for what, value in provenance(run)]
        text += ["", f"## {run.name}", "", _row("what", "value"), "|---|---|", *known]
    return "\n".join(text) + "\n"


def _with_spread(row: ScoreRow, column: int) -> str:
    value = cell(row.cells[column], bool(row.marked) and row.marked[column])
    value += f" [{UNFIT}]" if row.unfit and row.unfit[column] else ""
    small = row.small(column)
    return f"{value} {small}" if small.startswith("±") else f"{value} ({small})" if small else value


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def comma_separated(runs: Sequence[Run], table: ScoreTable) -> str:
    """The score table as CSV in full precision, with summary keys as headings and the provenance of each row.

    ``<key>_low`` and ``<key>_high`` bound the interval of a figure, ``<key>_std`` is its deviation over seeds.
    """
    known = {run.name: facts(run) for run in runs}
    shares = [index for index, key in enumerate(table.keys) if COLUMNS[key][0].share]
    seeds = any(row.kind == "seeds" for row in table.rows)
    bounds = [f"{table.keys[index]}_{side}" for index in shares for side in ("low", "high")]
    deviations = [f"{key}_std" for key in table.keys if seeds]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["run", "method", "n", "sample", *table.keys, *bounds, *deviations, *OTHERWISE, *FACTS])
    for row in table.rows:
        own: dict[str, Any] = known.get(row.name, {}) if row.kind == "run" else {}
        low_high = [bound for i in shares for bound in (row.intervals and row.intervals[i]) or (None, None)]
        spread = [*low_high, *(row.deviations or [None] * len(deviations))]
        cells = [*row.cells, *spread, row.trained, row.measured, *(own.get(fact) for fact in FACTS)]
        writer.writerow([row.name, row.method, row.n, row.sample, *("" if c is None else c for c in cells)])
    return buffer.getvalue()
