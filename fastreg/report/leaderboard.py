"""A leaderboard of evaluated runs: one ranked table per data set, as HTML, CSV and JSON.

Effective robustness is the accuracy on shifted images above that which models of the same clean accuracy have: the
difference from a line through the logits of the accuracies of baseline models (Taori et al. 2020, 2007.00644). Whole
natural sets have published lines (``published_lines.py``); a file of other models gives further or other ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.errors import InputError
from fastreg.files import atomic_write, write_json
from fastreg.pipelines.natural_sets import NATURAL_SETS
from fastreg.report.figures_table import COLUMNS, FIGURES, legend, shown
from fastreg.report.published_lines import IMAGES, PUBLISHED_LINES, Line, logit
from fastreg.report.run_folder import Run, load_runs
from fastreg.report.spread import intervals
from fastreg.version import __version__

FEWEST = 3  # models that determine a line and its spread
EFFECTIVE = "effective_"  # in front of a figure's key: its effective robustness in percentage points
_ACCURACY = 100.0


class Ranking(NamedTuple):
    """The runs on one data set, best first by the figure ``ranked``, and the columns of their table."""

    data: str
    ranked: str
    keys: Sequence[str]
    runs: Sequence[Run]
    effective: Mapping[str, Mapping[str, float]]  # figure -> run -> percentage points


def write_leaderboard(
    runs: Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    sort_by: str | None = None,
    baseline: str | Path | None = None,
    runs_root: str | Path = "runs",
) -> list[Ranking]:
    """Rank evaluated runs and write ``leaderboard.html``, ``.csv`` and ``.json``.

    Runs on different data (set, split, number of images, size) are ranked apart.

    Args:
        runs: run folders; none: all evaluated runs of ``runs_root``.
        out: folder of the three files; default: ``runs_root``.
        sort_by: summary key of the ranking figure, such as ``mce``; default: the first figure that most runs have.
        baseline: CSV file of other models with the columns ``clean_error`` and the keys of shifted figures, in percent,
            such as another leaderboard's; effective robustness is computed for figures of three models or more, in
            place of the published lines of natural sets.
        runs_root: folder of run folders.

    Returns:
        The tables.

    Raises:
        InputError: no evaluated run, an unknown figure, or a baseline that cannot be read.

    Source:
        Taori et al. 2020, Measuring robustness to natural distribution shifts in image classification (2007.00644).
    """
    folders = list(runs) or [card.parent for card in sorted(Path(runs_root).glob("*/scorecard.json"))]
    loaded, broken = load_runs(folders)
    if not loaded:
        raise InputError(broken[0] if broken else f"no evaluated run in {runs_root}: run `fastreg eval` first.")
    lines = {**PUBLISHED_LINES, **(_lines(Path(baseline)) if baseline is not None else {})}
    rankings = [_ranking(group, sort_by, lines) for group in _by_data(loaded)]
    if sort_by is not None and not any(sort_by in ranking.keys for ranking in rankings):
        known = list(dict.fromkeys(key for ranking in rankings for key in ranking.keys))
        raise InputError(f"`sort_by` is {sort_by!r}: no run has that figure; give one of {', '.join(known)}.")
    folder = Path(out) if out is not None else Path(runs_root)
    atomic_write(folder / "leaderboard.html", _page(rankings, lines))
    atomic_write(folder / "leaderboard.csv", _csv(rankings))
    write_json(folder / "leaderboard.json", [entry(run) for ranking in rankings for run in ranking.runs])
    return rankings


def _by_data(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        data = run.card.data
        groups.setdefault((run.data_name, data["n"], data["size"], run.card.sample), []).append(run)
    return list(groups.values())


def _ranking(runs: Sequence[Run], sort_by: str | None, lines: Mapping[str, Line]) -> Ranking:
    keys = shown(run.card.summary() for run in runs)
    ranked = sort_by if sort_by in keys else _first(runs, keys)
    sign = -1 if ranked and COLUMNS[ranked][0].best == "highest" else 1

    def rank(run: Run) -> tuple[bool, float]:
        value = run.card.summary().get(ranked)
        return value is None, sign * (value or 0.0)

    data = runs[0].card.data
    title = f"{runs[0].data_name}{' (sample)' if runs[0].card.sample else ''}, n = {data['n']:,}, {data['size']} px"
    effective: dict[str, dict[str, float]] = {}
    for key, line in lines.items():
        for run in runs:
            summary = run.card.summary()
            if key in summary and "clean_error" in summary and _fits(line, run, key):
                above = line.expected(summary["clean_error"]) - summary[key]
                effective.setdefault(EFFECTIVE + key, {})[run.name] = above
    return Ranking(title, ranked, keys, sorted(runs, key=rank), effective)


def _fits(line: Line, run: Run, key: str) -> bool:
    """Whether a line holds for a run: published ones do for whole sets and ImageNet's whole validation set."""
    own, card = COLUMNS[key][0].images_of, run.card
    if not line.source or own is None:
        return not line.source
    whole = card.results(own[0])[own[1]]["n"] == NATURAL_SETS[own[1]].images
    return whole and card.is_imagenet and card.data["n"] == IMAGES and not run.altered(key)


def _first(runs: Sequence[Run], keys: Sequence[str]) -> str:
    """The first figure that most runs have."""
    counts = {key: sum(key in run.card.summary() for run in runs) for key in keys}
    return max(counts, key=lambda key: counts[key], default="")


def _lines(path: Path) -> dict[str, Line]:
    """The line of each figure of which the file has three models or more."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"`baseline` {path} cannot be read: {error}.") from error
    keys = [key for key in (rows[0] if rows else {}) if key in FIGURES and COLUMNS[key][0].share]
    if "clean_error" not in keys:
        raise InputError(f"`baseline` {path} has no column clean_error: give a CSV file of errors in percent.")
    found = {}
    for key in keys:
        pairs = [(_percent(row["clean_error"]), _percent(row[key])) for row in rows]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if key != "clean_error" and len({a for a, _ in known}) >= FEWEST:
            found[key] = _fit(known)
    if not found:
        raise InputError(f"`baseline` {path} has no figure of {FEWEST} models or more beside clean_error.")
    return found


def _fit(errors: Sequence[tuple[float, float]]) -> Line:
    """Least squares in logits of accuracies; ``errors`` in percent."""
    x, y = ([logit(_ACCURACY - pair[side]) for pair in errors] for side in (0, 1))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)
    return Line(slope, mean_y - slope * mean_x, len(errors))


def _percent(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value <= _ACCURACY else None


def entry(run: Run) -> dict[str, Any]:
    """A run as RobustBench's model cards have it, and all its figures under ``figures``."""
    card, summary = run.card, run.card.summary()
    epsilon = next(
        (card.suite_settings(s).get("epsilon") for s in ("autoattack", "pgd", "fgsm") if card.results(s)), None
    )

    altered = [f"{suite}: {how}" for suite in card.suites if (how := card.altered(suite))]

    def accuracy(key: str) -> float | None:
        return _ACCURACY - summary[key] if key in summary else None

    return {
        "name": run.name,
        "dataset": card.data["name"],
        "architecture": card.model["name"],
        "method": run.method,
        "eps": epsilon,
        "clean_acc": accuracy("clean_error"),
        "autoattack_acc": accuracy("autoattack_error"),
        "corruptions_acc": accuracy("imagenet_c_error") if "imagenet_c_error" in summary else accuracy("cifar_c_error"),
        "corruptions_mce": summary.get("mce"),
        "number_images": card.data["n"],
        "sample": card.sample,
        "measured_otherwise": "; ".join(filter(None, (card.measuring, *altered))),
        "figures": summary,
    }


def _csv(rankings: Sequence[Ranking]) -> str:
    keys = list(dict.fromkeys(key for ranking in rankings for key in ranking.keys))
    effective = list(dict.fromkeys(key for ranking in rankings for key in ranking.effective))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["data", "rank", "run", "model", "method", *keys, *effective])
    for ranking in rankings:
        for rank, run in enumerate(ranking.runs, 1):
            summary = run.card.summary()
            own = [ranking.effective.get(key, {}).get(run.name, "") for key in effective]
            figures = [summary.get(key, "") for key in keys]
            writer.writerow([ranking.data, rank, run.name, run.card.model["name"], run.method, *figures, *own])
    return buffer.getvalue()


def _page(rankings: Sequence[Ranking], lines: Mapping[str, Line]) -> str:
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here), autoescape=select_autoescape(["html"]), trim_blocks=True)
    environment.globals |= {"intervals": intervals, "figures": FIGURES, "legend": legend, "prefix": EFFECTIVE}
    return environment.get_template("leaderboard.html").render(
        version=__version__, style=(here / "report.css").read_text(), rankings=rankings, lines=lines
    )
