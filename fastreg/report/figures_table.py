"""The columns of the score tables, from the figures of the table of suites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastreg.evaluation.suites import ROWS
from fastreg.evaluation.types import Figure

# summary key -> the column and the suites it is computed from; figures of several suites come first
COLUMNS: dict[str, tuple[Figure, tuple[str, ...]]] = {
    key: (figure, figure.of or (name,))
    for name, row in sorted(ROWS.items(), key=lambda item: item[1].expands is None)
    for key, figure in row.figures.items()
}
# summary key -> (heading, meaning, suites)
FIGURES = {key: (figure.heading, figure.meaning, suites) for key, (figure, suites) in COLUMNS.items()}
SECONDARY = tuple(key for key, (figure, _) in COLUMNS.items() if figure.secondary)  # the second table of a report

UNFIT = "cannot be judged on sample data"


def shown(summaries: Iterable[dict[str, Any]]) -> list[str]:
    """The figures that any of the summaries has, in the table's order, without those that another figure replaces."""
    present = {key for summary in summaries for key in summary}
    return [key for key, (figure, _) in COLUMNS.items() if key in present and figure.unless not in present]


def legend(keys: Sequence[str]) -> list[tuple[str, str]]:
    """(headings, meaning) of the figures; headings with one meaning are joined."""
    joined: dict[str, list[str]] = {}
    for key in keys:
        heading, meaning, _ = FIGURES[key]
        joined.setdefault(meaning, []).append(heading)
    return [(", ".join(headings), meaning) for meaning, headings in joined.items()]
