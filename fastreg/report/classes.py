"""The classes of a run in a report: worst classes, most confused pairs, and the confusion of few classes.

They are read from per_class.csv and confusion.csv, which an evaluation writes beside the scorecard.
"""

from __future__ import annotations

from typing import Any

from fastreg.evaluation.class_counts import CONFUSION, PER_CLASS, read_columns
from fastreg.report.heat import heat
from fastreg.report.run_folder import Run

ROWS = 10  # of the tables of worst classes and confused pairs
FEW = 20  # classes whose confusion is drawn as a heat map


def classes(run: Run) -> dict[str, Any]:
    """Worst classes, confused pairs and heat map of a run's clean images; empty without the files."""
    columns = read_columns(run.folder / PER_CLASS)
    if not {"class", "images", "clean"} <= columns.keys():
        return {}
    names = columns["class"]
    try:
        images, wrong = ([int(value) for value in columns[key]] for key in ("images", "clean"))
    except ValueError:
        return {}
    rates = [100 * w / n if n else None for n, w in zip(images, wrong)]
    pairs = _pairs(run)
    to: dict[str, tuple[int, str]] = {}
    for true, found, count in pairs:
        if true != found:
            to[true] = max(to.get(true, (0, "")), (count, found))
    order = sorted((k for k, rate in enumerate(rates) if rate), key=lambda k: (-(rates[k] or 0), names[k]))
    worst = [
        {"name": names[k], "wrong": wrong[k], "images": images[k], "error": rates[k], "as": to.get(names[k], (0, ""))}
        for k in order[:ROWS]
    ]
    confused = sorted(((a, b, n) for a, b, n in pairs if a != b), key=lambda pair: (-pair[2], pair[:2]))
    return {"worst": worst, "pairs": confused[:ROWS], "map": _map(names, images, pairs), "count": len(names)}


def _pairs(run: Run) -> list[tuple[str, str, int]]:
    """(true class, predicted class, images) of the clean images; empty without the file."""
    columns = read_columns(run.folder / CONFUSION)
    try:
        return list(zip(columns["true"], columns["predicted"], map(int, columns["images"])))
    except (KeyError, ValueError):
        return []


def _map(names: list[str], images: list[int], pairs: list[tuple[str, str, int]]) -> list[dict[str, Any]]:
    """One row per true class: the share of its images by predicted class; empty for more than ``FEW`` classes."""
    if not pairs or len(names) > FEW:
        return []
    counts = {(true, found): count for true, found, count in pairs}
    return [
        {
            "name": name,
            "cells": [heat(100 * counts.get((name, other), 0) / total if total else None) for other in names],
        }
        for name, total in zip(names, images)
    ]
