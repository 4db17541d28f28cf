"""``fastreg paper``: the published tables beside whatever runs exist, and Figure 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastreg.errors import InputError
from fastreg.report import paper_rows as published
from fastreg.report.figures_table import Run, load_runs, method
from fastreg.report.scores import cell
from fastreg.runs import selection_error

DATASET = {"table1": "cifar100", "table2": "cifar100", "table3": "cifar100", "table4": "imagenet"}


def paper(table: str, runs_root: str | Path = "runs") -> None:
    """Print ``table1`` to ``table4`` as published; under each row, the runs with its methods and data set.

    A run is evaluated at its best epoch, as the paper's; its last one's clean error stands beside its name. Figures
    that are not what the paper measures (sample data, fewer images, another set, an altered attack) bear a star, and a
    line below says why. Raises InputError for another name.
    """
    from rich.console import Console
    from rich.table import Table

    columns = published.columns(table)
    shown = Table(title=published.TABLES[table][1], box=None, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("method", overflow="fold", min_width=14)
    for heading, _ in columns.values():
        shown.add_column(heading, justify="right", no_wrap=True, min_width=5)
    runs = evaluated(runs_root, DATASET[table])
    figures = [figure for _, figure in columns.values()]
    departures: list[str] = []
    for row in published.rows(table):
        shown.add_row(published.label(row), *(f"{row[key]:.2f}" for key in columns), style="dim" if runs else "")
        for run in (run for run in runs if published.match(run.training, table) is row):
            summary = run.card.summary()
            cells = [cell(summary.get(figure), bool(run.departs(figure))) for figure in figures]
            stamp = ["sample"] if run.card.sample else []
            if not run.repeats_paper():
                stamp += [str(run.training.get("model")), f"{run.training.get('epochs')} epochs"]
            stamp += [f"n = {run.card.data['n']:,}", *last_epoch(run)]
            shown.add_row(f"  {run.name} ({', '.join(stamp)})", *cells)
            departures += run.departures(figures)
    console = Console()
    console.print(shown)
    for why in departures:
        console.print(f"* not what the paper measures: {why}.", soft_wrap=True, markup=False, highlight=False)


def last_epoch(run: Run) -> list[str]:
    """What the evaluated best epoch hides: the clean error of the last one, where it is higher."""
    errors = [selection_error(row) for row in run.log if row.get("kind") == "epoch"]
    return [f"last epoch {errors[-1]:.2f} clean"] if errors and errors[-1] > min(errors) else []


def evaluated(root: str | Path, dataset: str | None = None) -> list[Run]:
    """The run folders under ``root`` that hold a scorecard, optionally only those trained on one data set.

    Those that cannot be read are named on stderr and left out.
    """
    runs, _ = load_runs(path.parent for path in sorted(Path(root).glob("*/scorecard.json")))
    return [run for run in runs if dataset in (None, run.training.get("dataset"))]


def figure1(out: str | Path, runs_root: str | Path = "runs", runs: Sequence[Run] | None = None) -> Path:
    """Draw the average top-1 probability of every evaluated run by method, without and with label smoothing.

    The paper prints its Figure 1 without numbers, so it shows runs only. ``out``: .png, .svg or .pdf. Returns the path.
    Raises InputError when no run has been evaluated.
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
    for side, (smooth, label, colour) in enumerate(
        ((False, "hard labels", "#2563c9"), (True, "label smoothing", "#e0953c"))
    ):
        x = [i + (side - 0.5) * 0.38 for i, pair in enumerate(bars.values()) if smooth in pair]
        y = [pair[smooth] for pair in bars.values() if smooth in pair]
        axes.bar(x, y, width=0.36, label=label, color=colour)
    axes.set_xticks(range(len(bars)), list(bars), rotation=20, ha="right")
    axes.set_ylabel("average top-1 probability, %")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    buffer, path = io.BytesIO(), Path(out)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"{path}: figures are written as .png, .svg or .pdf; give such a name.")
    figure.savefig(buffer, format=path.suffix[1:], dpi=160)
    atomic_write(path, buffer.getvalue())
    return path


def _confidences(runs: Sequence[Run]) -> dict[str, dict[bool, float]]:
    """Method, data and n -> {smoothed: mean confidence over its runs}; what was measured on other data stays apart."""
    gathered: dict[str, dict[bool, list[float]]] = {}
    for run in runs:
        confidence: Any = run.card.summary().get("confidence")
        training = run.training
        if confidence is None or "reg" not in training:
            continue  # not evaluated on clean images, or weights whose training is not known
        name = method({**training, "ls": 0})
        name += f"\n{run.card.data['name']}{' sample' if run.card.sample else ''}, n = {run.card.data['n']:,}"
        gathered.setdefault(name, {}).setdefault(float(training.get("ls") or 0) > 0, []).append(confidence)
    return {name: {smooth: sum(v) / len(v) for smooth, v in pair.items()} for name, pair in sorted(gathered.items())}
