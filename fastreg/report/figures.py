"""The charts and heat maps of a report, as SVG text and table cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from fastreg.evaluation.conditions import SEVERITIES
from fastreg.metrics.corruption import CATEGORIES
from fastreg.report import svg
from fastreg.report.heat import heat
from fastreg.report.run_folder import Run
from fastreg.report.scores import cell
from fastreg.runs import selection_error

Chart = tuple[str, Markup]  # caption, SVG
SMALL = {"width": 180, "height": 140}


def training(runs: Sequence[Run]) -> list[Chart]:
    """The training loss and the validation error by epoch; empty without logs."""
    charts = []
    kinds = (("train_loss", "loss", "Training loss"), ("val_top1_error", "error, %", "Validation top-1 error"))
    for key, y_label, caption in kinds:
        series = []
        for run in runs:
            rows = [row for row in run.log if row.get("kind") == "epoch" and row.get(key) is not None]
            if rows:
                x = [row["epoch"] + 1 for row in rows]
                series.append(svg.Line(run.name, x, [row[key] for row in rows], run.series, len(x) < 16))
        charts += _charts(series, f"{caption} by epoch", caption, x_label="epoch", y_label=y_label, whole_x=True)
    return charts


def _charts(series: Sequence[svg.Line], about: str, caption: str, **axes: Any) -> list[Chart]:
    """One chart of all lines; of more lines than there are styles, a chart for each with the others in gray."""
    if not series:
        return []
    if len(series) <= svg.N_SERIES:
        return [(caption, Markup(svg.lines(series, alt=_alt(about, series), **axes)))]
    gray = [line._replace(series=None, dots=False) for line in series]
    return [
        (f"{caption}: {own.name}", Markup(svg.lines([*others, own], alt=_alt(about, [own]), **axes)))
        for own, others in ((own, [line for line in gray if line.name != own.name]) for own in series)
    ]


def _alt(about: str, series: Sequence[svg.Line]) -> str:
    """The text alternative of a chart: each line's first and last value."""
    ends = []
    for line in series:
        kept = [value for value in line.y if value is not None]
        if kept:
            ends.append(f"{line.name} from {kept[0]:.4g} to {kept[-1]:.4g}")
    return f"{about}: {'; '.join(ends) or 'no values'}"


def best_and_last(run: Run) -> str:
    """The clean error of the best and of the last epoch, from the log; empty without one."""
    rows = [row for row in run.log if row.get("kind") == "epoch" and row.get("val_top1_error") is not None]
    if not rows:
        return ""
    last = rows[-1]
    tied = rows[::-1] if run.training.get("best_of_ties") == "last" else rows
    best = min(tied, key=selection_error)
    averaged = " of the averaged weights" if "ema_val_top1_error" in last else ""
    return (
        f"validation top-1 error{averaged} {selection_error(best):.2f} at the best epoch ({best['epoch'] + 1}), "
        f"{selection_error(last):.2f} at the last ({last['epoch'] + 1})"
    )


def heat_map(run: Run, suite: str) -> list[dict[str, Any]]:
    """One row per corruption in the suite's order: name, category, five cells (text, background, ink) and the mean."""
    table = run.card.severity_errors(suite)
    category = {name: group for group, names in CATEGORIES.items() for name in names}
    ordered = [*(name for name in category if name in table), *(name for name in table if name not in category)]
    rows = []
    for name in ordered:
        errors = table[name]
        mean = sum(errors.values()) / len(SEVERITIES) if len(errors) == len(SEVERITIES) else None
        cells = [heat(errors.get(severity)) for severity in SEVERITIES]
        rows.append({"name": name, "category": category.get(name, "extra"), "cells": cells, "mean": heat(mean)})
    return rows


def severity_curves(runs: Sequence[Run], suite: str) -> list[Chart]:
    """A chart per corruption: error by severity, one line per run. Severity 0 is the clean images, if measured.

    More runs than there are line styles: a chart per run, of the mean over its corruptions.
    """
    measured = [run for run in runs if run.card.results(suite)]
    steps = [0, *SEVERITIES] if has_clean(measured) else list(SEVERITIES)
    axes: dict[str, Any] = {"x_label": "severity", "y_label": "error, %", "y": (0, 100), "x_ticks": steps, **SMALL}
    if len(measured) > svg.N_SERIES:
        series = [svg.Line(run.name, steps, _by_severity(run, suite, None), run.series, True) for run in measured]
        return _charts(series, f"{suite}: mean top-1 error of the corruptions by severity", "mean", **axes)
    names: list[str] = []
    for run in measured:
        names += [row["name"] for row in heat_map(run, suite) if row["name"] not in names]
    charts = []
    for name in names:
        having = [run for run in measured if name in run.card.severity_errors(suite)]
        dots = len(measured) <= svg.N_COLORS
        series = [svg.Line(run.name, steps, _by_severity(run, suite, name), run.series, dots) for run in having]
        caption = name.replace("_", " ")
        charts += _charts(series, f"{suite}, {caption}: top-1 error by severity", caption, **axes)
    return charts


def has_clean(runs: Sequence[Run]) -> bool:
    """Whether any of the runs has the error on the clean images."""
    return any(run.card.summary().get("clean_error") is not None for run in runs)


def _by_severity(run: Run, suite: str, name: str | None) -> list[float | None]:
    """The errors of a corruption (None: of all, their mean) by severity, with the clean error first where it is."""
    table = run.card.severity_errors(suite)
    rows = list(table.values()) if name is None else [table[name]]
    errors: list[float | None] = []
    for severity in SEVERITIES:
        found = [row[severity] for row in rows if severity in row]
        errors.append(sum(found) / len(found) if found else None)
    clean = run.card.summary().get("clean_error")
    return [clean, *errors] if clean is not None else errors


def calibration_curves(runs: Sequence[Run], suite: str) -> list[Chart]:
    """The expected calibration error by severity, mean over the corruptions; severity 0 is the clean images."""
    measured = [run for run in runs if run.card.severity_ece(suite)]
    with_clean = any(run.card.summary().get("ece") is not None for run in measured)
    steps = [0, *SEVERITIES] if with_clean else list(SEVERITIES)
    series = []
    for run in measured:
        found = run.card.severity_ece(suite)
        own: list[float | None] = [found.get(severity) for severity in SEVERITIES]
        own = [run.card.summary().get("ece"), *own] if with_clean else own
        series.append(svg.Line(run.name, steps, own, run.series, True))
    about = f"{suite}: expected calibration error at each severity, mean of the corruptions"
    axes: dict[str, Any] = {"x_label": "severity", "y_label": "ECE, %", "x_ticks": steps}
    return _charts(series, about, f"{suite}: ECE by severity, mean of the corruptions", **axes)


def calibration(runs: Sequence[Run]) -> list[tuple[Run, list[Chart]]]:
    """For each run the reliability diagram and the histogram of confidence on clean images, on the same axes."""
    rows_of = [(run, run.card.results("clean").get("clean", {})) for run in runs]
    found = [(run, row["bins"]) for run, row in rows_of if row.get("bins")]
    shares = [_shares(bins["count"]) for _, bins in found]
    top = svg.top_tick(0, max((max(own) for own in shares), default=1), 5)
    rows = []
    for (run, bins), own in zip(found, shares):
        axes: dict[str, Any] = {"x_label": "confidence", "series": run.series}
        ece = cell(run.card.summary().get("ece"))
        reliability = svg.bars(
            bins["accuracy"],
            y_label="accuracy",
            alt=f"Reliability diagram of {run.name}: accuracy by confidence, expected calibration error {ece} %",
            y=(0, 1),
            behind=bins["confidence"],
            diagonal=True,
            **axes,
        )
        confident = 100 * sum(own[len(own) // 2 :])
        about = f"{confident:.0f} % of the images above 0.5"
        histogram = svg.bars(
            own, y_label="share of images", alt=f"Confidence histogram of {run.name}: {about}", y=(0, top), **axes
        )
        charts = [
            ("Reliability: accuracy by confidence; outlined: the mean confidence", Markup(reliability)),
            ("Confidence: share of images by top-1 probability", Markup(histogram)),
        ]
        rows.append((run, charts))
    return rows


def detection(runs: Sequence[Run]) -> list[tuple[Run, list[Chart]]]:
    """For each run and out-of-distribution set the histograms of the scores of both sets, on the same axes."""
    sides = ("histogram_in", "histogram_out")
    every = [_shares(row[side]) for run in runs for row in run.card.results("ood").values() for side in sides]
    top = svg.top_tick(0, max((max(shares) for shares in every), default=1), 5)
    found = []
    for run in (run for run in runs if run.card.results("ood")):
        charts = []
        for name, row in run.card.results("ood").items():
            inside, outside = (_shares(row[side]) for side in sides)
            error, auroc = cell(row["detection_error"]), cell(row["auroc"])
            caption = f"{name.replace('_', ' ')}: detection error {error}, AUROC {auroc}"
            chart = svg.bars(
                outside,
                x_label="largest softmax probability",
                y_label="share",
                alt=f"Scores of {run.name} on {caption}",
                series=run.series,
                y=(0, top),
                behind=inside,
                width=260,
                height=160,
            )
            charts.append((caption, Markup(chart)))
        found.append((run, charts))
    return found


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(sum(counts), 1)
    return [count / total for count in counts]
