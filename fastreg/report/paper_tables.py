"""The paper's tables with the evaluated runs below their rows, and Figure 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastreg.errors import InputError
from fastreg.report import paper_rows
from fastreg.report.run_folder import Run, load_runs, method
from fastreg.report.scores import INTERVALS, cell, from_the_code, interval_text, reasons
from fastreg.report.spread import by_seed, intervals, over_seeds, seeds_name
from fastreg.runs import selection_error


def paper(table: str, runs_root: str | Path = "runs") -> None:
    """Print a table of the paper, with the evaluated runs below the rows that have their methods.

    Runs are evaluated at their best epoch, as the paper's; a higher clean error of the last epoch is printed beside the
    name. Figures measured otherwise than in the paper and runs trained otherwise have a star, and a line below the
    table gives the reason.

    Args:
        table: "table1" to "table4".
        runs_root: the folder of the run folders.

    Raises:
        InputError: another table.
    """
    from rich.console import Console
    from rich.table import Table

    columns = paper_rows.columns(table)
    shown = Table(title=paper_rows.TABLES[table][1], box=None, padding=(0, 1, 0, 0), pad_edge=False)
    runs = evaluated(runs_root, paper_rows.DATASET[table])
    longest = max((len(f"  {run.name}*") for run in runs), default=0)
    shown.add_column("method", overflow="fold", min_width=max(14, longest))
    for heading, _ in columns.values():
        shown.add_column(heading, justify="right", no_wrap=True, min_width=5)
    figures = [figure for _, figure in columns.values()]
    departures: list[str] = []
    for row in paper_rows.rows(table):
        shown.add_row(paper_rows.label(row), *(f"{row[key]:.2f}" for key in columns), style="dim" if runs else "")
        own = [run for run in runs if paper_rows.match(run.training, table) is row]
        for run in own:
            summary = run.card.summary()
            ranges = [interval_text(spread) for spread in intervals(run, figures)]
            stars = [bool(run.departs(figure)) for figure in figures]
            cells = [f"{cell(summary.get(f), star)}\n{small}" for f, star, small in zip(figures, stars, ranges)]
            stamp = ["sample"] if run.card.sample else []
            differs = run.trained_otherwise()
            stamp += [f"n = {run.card.data['n']:,}", *last_epoch(run)]
            shown.add_row(f"  {run.name}{'*' if differs else ''} ({', '.join(stamp)})", *cells)
        departures += reasons(own, {run.name: figures for run in own})
        for group in (group for group in by_seed(own) if len(group) > 1):
            stars = [any(run.departs(figure) for run in group) for figure in figures]
            found = zip(over_seeds(group, figures), stars)
            means = [f"{cell(pair[0], marked)}\n±{pair[1]:.2f}" if pair else "–" for pair, marked in found]
            star = "*" if any(run.trained_otherwise() for run in group) else ""
            shown.add_row(f"  {seeds_name(group)}{star}", *means, style="bold")
    console = Console(markup=False)  # names come from files
    # rich cuts off columns that do not fit; a line that is too long can still be read
    needed = console.measure(shown, options=console.options.update(width=1000)).minimum
    Console(width=max(console.width, needed), markup=False).print(shown)
    if runs:
        console.print(f"Range: {INTERVALS}.", soft_wrap=True, markup=False, highlight=False)
    if contradiction := paper_rows.contradictions(table):
        console.print(contradiction, soft_wrap=True, markup=False, highlight=False)
    for why in departures:
        console.print(f"* {why}.", soft_wrap=True, markup=False, highlight=False)
    for what in from_the_code([run for run in runs if paper_rows.match(run.training, table)]):
        console.print(f"{what}.", soft_wrap=True, markup=False, highlight=False)


def last_epoch(run: Run) -> list[str]:
    """The clean error of the last epoch, if it is higher than the best one."""
    errors = [selection_error(row) for row in run.log if row.get("kind") == "epoch"]
    return [f"last epoch {errors[-1]:.2f} clean"] if errors and errors[-1] > min(errors) else []


def evaluated(root: str | Path, dataset: str | None = None) -> list[Run]:
    """The runs under ``root`` that have a scorecard, optionally only those trained on one data set.

    Runs that cannot be read are left out with a warning.
    """
    runs, _ = load_runs(path.parent for path in sorted(Path(root).glob("*/scorecard.json")))
    return [run for run in runs if dataset in (None, run.training.get("dataset"))]


def figure1(out: str | Path, runs_root: str | Path = "runs", runs: Sequence[Run] | None = None) -> Path:
    """Draw the average top-1 probability of evaluated runs by method, without and with label smoothing.

    Runs that differ in the seed alone are averaged; other runs of one method have bars of their own.

    The paper's Figure 1 has no printed numbers, so the figure shows runs only.

    Args:
        out: the file, .png, .svg or .pdf.
        runs_root: the folder of the run folders.
        runs: the runs; None: all below ``runs_root``.

    Returns:
        The path of the file.

    Raises:
        InputError: no run has been evaluated, or another suffix of ``out``.
    """
    import io

    from matplotlib.figure import Figure

    from fastreg.files import atomic_write

    found = evaluated(runs_root) if runs is None else list(runs)
    bars = _confidences(found)
    if not bars:
        raise InputError(f"no evaluated run under {runs_root}: run `fastreg eval --suite confidence` first.")
    figure = Figure(figsize=(max(4.5, 1.1 * len(bars) + 2), 3.6), layout="constrained")
    axes = figure.add_subplot()
    for side, (smooth, label, color) in enumerate(
        ((False, "hard labels", "#2563c9"), (True, "label smoothing", "#e0953c"))
    ):
        x = [i + (side - 0.5) * 0.38 for i, pair in enumerate(bars.values()) if smooth in pair]
        y = [pair[smooth] for pair in bars.values() if smooth in pair]
        axes.bar(x, y, width=0.36, label=label, color=color)
    axes.set_xticks(range(len(bars)), list(bars), rotation=20, ha="right")
    axes.set_ylabel("average top-1 probability, %")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    buffer, path = io.BytesIO(), Path(out)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"`out` is {path}: give the name of a .png, .svg or .pdf file.")
    figure.savefig(buffer, format=path.suffix[1:], dpi=160)
    atomic_write(path, buffer.getvalue())
    return path


def _confidences(runs: Sequence[Run]) -> dict[str, dict[bool, float]]:
    """Method, data and n -> {label smoothing: confidence}: the mean of runs that differ in the seed alone.

    Runs of one method that differ in other settings have their names added, and a bar each.
    """
    known = [run for run in runs if run.card.summary().get("confidence") is not None and "reg" in run.training]
    gathered: dict[str, dict[bool, list[list[Run]]]] = {}
    for group in by_seed(known):
        training, card = group[0].training, group[0].card
        name = f"{method({**training, 'ls': 0})}\n{card.data['name']}{' sample' if card.sample else ''}"
        own = gathered.setdefault(f"{name}, n = {card.data['n']:,}", {})
        own.setdefault(float(training.get("ls") or 0) > 0, []).append(group)
    found: dict[str, dict[bool, float]] = {}
    for name, pair in sorted(gathered.items()):
        for smooth, groups in pair.items():
            for group in groups:
                label = name if len(groups) == 1 else f"{name}\n{', '.join(run.name for run in group)}"
                values = [float(run.card.summary()["confidence"]) for run in group]
                found.setdefault(label, {})[smooth] = sum(values) / len(values)
    return found
