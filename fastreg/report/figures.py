"""The charts and heat maps of a report, as SVG text and table cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from fastreg.evaluation.conditions import SEVERITIES
from fastreg.metrics.corruption import CATEGORIES
from fastreg.report import svg
from fastreg.report.run_folder import Run
from fastreg.report.scores import cell
from fastreg.runs import selection_error


def training(runs: Sequence[Run]) -> list[tuple[str, Markup]]:
    """(caption, chart) of the training loss and of the validation error by epoch; empty without logs."""
    charts = []
    kinds = (("train_loss", "loss", "Training loss"), ("val_top1_error", "error, %", "Validation top-1 error"))
    for key, y_label, caption in kinds:
        series = []
        for run in runs:
            rows = [row for row in run.log if row.get("kind") == "epoch" and row.get(key) is not None]
            if rows:
                x = [row["epoch"] + 1 for row in rows]
                series.append(svg.Line(run.name, x, [row[key] for row in rows], run.color, len(x) < 40))
        if series:
            charts.append((caption, Markup(svg.lines(series, x_label="epoch", y_label=y_label))))
    return charts


def best_and_last(run: Run) -> str:
    """The clean error of the best and of the last epoch, from the log; empty without one."""
    rows = [row for row in run.log if row.get("kind") == "epoch" and row.get("val_top1_error") is not None]
    if not rows:
        return ""
    best, last = min(rows, key=selection_error), rows[-1]
    return (
        f"validation top-1 error {selection_error(best):.2f} at the best epoch ({best['epoch'] + 1}), "
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


def heat(error: float | None) -> dict[str, str]:
    """A cell from pale to dark red by an error in percent; text is black or white, whichever has more contrast."""
    if error is None:
        return {"text": "–", "style": ""}
    share = min(max(error / 100, 0.0), 1.0)
    stops = ((250, 246, 240), (240, 170, 120), (122, 24, 36))
    low, high, t = (stops[0], stops[1], share * 2) if share < 0.5 else (stops[1], stops[2], share * 2 - 1)
    r, g, b = (round(a + (c - a) * t) for a, c in zip(low, high))
    light = sum(weight * linear(channel) for weight, channel in zip((0.2126, 0.7152, 0.0722), (r, g, b)))
    ink = "#fff" if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else "#000"  # WCAG's contrast, 4.6 or more
    return {"text": f"{error:.0f}", "style": f"background:rgb({r},{g},{b});color:{ink}"}


def linear(channel: float) -> float:
    """Linear light in [0, 1] of an 8-bit sRGB value."""
    share = channel / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def severity_curves(runs: Sequence[Run], suite: str) -> list[tuple[str, Markup]]:
    """(corruption, small chart) of the error by severity, one line per run; severity 0 is the clean images."""
    names: list[str] = []
    for run in runs:
        names += [row["name"] for row in heat_map(run, suite) if row["name"] not in names]
    charts = []
    for name in names:
        series = []
        for run in runs:
            errors = run.card.severity_errors(suite).get(name, {})
            if errors:
                clean = run.card.summary().get("clean_error")
                y = [clean, *(errors.get(severity) for severity in SEVERITIES)]
                series.append(svg.Line(run.name, [0, *SEVERITIES], y, run.color, True))
        chart = svg.lines(
            series, x_label="severity", y_label="error, %", y=(0, 100), x_ticks=[0, *SEVERITIES], width=180, height=140
        )
        charts.append((name.replace("_", " "), Markup(chart)))
    return charts


def calibration(run: Run) -> list[tuple[str, Markup]]:
    """(caption, chart): the reliability diagram and the histogram of confidence, from the clean images."""
    bins = run.card.results("clean")["clean"]["bins"]
    total = max(sum(bins["count"]), 1)
    shares = [count / total for count in bins["count"]]
    reliability = svg.bars(
        bins["accuracy"], x_label="confidence", y_label="accuracy", y=(0, 1), behind=bins["confidence"], diagonal=True
    )
    histogram = svg.bars(shares, x_label="confidence", y_label="share of images", color=svg.COLORS[2])
    return [
        ("Reliability: accuracy by confidence; outlined: the mean confidence", Markup(reliability)),
        ("Confidence: share of images by top-1 probability", Markup(histogram)),
    ]


def detection(run: Run) -> list[tuple[str, Markup]]:
    """(caption, chart) per out-of-distribution set: histograms of the scores of both sets, as shares."""
    charts = []
    for name, row in run.card.results("ood").items():
        inside, outside = (_shares(row[key]) for key in ("histogram_in", "histogram_out"))
        chart = svg.bars(
            outside,
            x_label="largest softmax probability",
            y_label="share",
            behind=inside,
            color=svg.COLORS[1],
            width=260,
            height=160,
        )
        caption = (
            f"{name.replace('_', ' ')}: detection error {cell(row['detection_error'])}, AUROC {cell(row['auroc'])}"
        )
        charts.append((caption, Markup(chart)))
    return charts


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(sum(counts), 1)
    return [count / total for count in counts]
