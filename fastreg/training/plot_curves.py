"""curves.png of a run: loss, validation error and learning rate by epoch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fastreg import files, runs
from fastreg.training.loss_curve import curve_of

OUTLIER = 8  # losses above that many times the median are cut off


def draw_curves(folder: Path) -> Path:
    """Draw the steps and epochs of a run as curves.png; of long runs, means of consecutive steps.

    Args:
        folder: the run folder.

    Returns:
        The path of the image.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no display
    from matplotlib.ticker import MaxNLocator

    steps, epochs = curve_of(folder).rows(), runs.read_epochs(folder)
    x = epochs_of_steps(steps, epochs)
    ended = [row["epoch"] + 1 for row in epochs]
    averaged = any("ema_val_top1_error" in row for row in epochs)
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    figure.suptitle(folder.resolve().name)
    loss, error, rate = figure.subplots(1, 3)
    losses: dict[str, tuple[list[float], list[float | None], dict[str, Any]]] = {
        "step": (x, [row["loss"] for row in steps], {"color": "#9bb7d4", "linewidth": 0.8}),
        "epoch mean": (ended, [row.get("train_loss") for row in epochs], {"color": "#1f4e79", "marker": "."}),
        "validation": (ended, [row.get("val_loss") for row in epochs], {"color": "#c55a11", "marker": "."}),
    }
    for name, (at, values, style) in losses.items():
        loss.plot(at, values, label=name, **style)
    limits, highest = loss_limits([value for _, values, _ in losses.values() for value in values])
    loss.set(title="loss" if limits is None else f"loss (cut off: up to {highest:.4g})")
    if limits is not None:
        loss.set_ylim(limits)
    loss.legend(frameon=False)
    error.plot(ended, [runs.selection_error(row) for row in epochs], color="#c55a11", marker=".", label="top-1")
    key = "ema_val_top5_error" if averaged else "val_top5_error"
    top5 = [(row["epoch"] + 1, row[key]) for row in epochs if key in row]
    if top5:
        error.plot(*zip(*top5, strict=True), color="#7f6000", marker=".", label="top-5")
        error.legend(frameon=False)
    errors = "errors" if top5 else "top-1 error"
    error.set(title=f"validation {errors}{' of the averaged weights' if averaged else ''} (%)", ylim=(0, 100))
    rate.plot(x, [row["lr"] for row in steps], color="#548235")
    rate.set(title="learning rate")
    for axes in (loss, error, rate):
        axes.set(xlabel="epoch", xlim=(0, max(ended, default=1)))
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    path = folder / "curves.png"
    files.atomic_write(path, image.getvalue())
    return path


def epochs_of_steps(steps: Sequence[dict[str, Any]], epochs: Sequence[dict[str, Any]]) -> list[float]:
    """Epochs trained at each logged step: between the ends of two epochs in proportion to the steps."""
    ends = [0, *(row["step"] for row in epochs)]
    done = [0, *(row["epoch"] + 1 for row in epochs)]
    return np.interp([row["step"] for row in steps], ends, done).tolist()


def loss_limits(losses: Sequence[float | None]) -> tuple[tuple[float, float] | None, float]:
    """``(limits, highest)``: limits of the loss axis that cut outliers off (None without outliers), highest loss."""
    finite = [value for value in losses if value is not None and np.isfinite(value)]
    if not finite:
        return None, 0.0
    highest, bound = max(finite), OUTLIER * median(finite)
    if bound <= 0 or highest <= bound:
        return None, highest
    low, high = min(finite), max(value for value in finite if value <= bound)
    margin = 0.05 * max(high - low, 0.1 * high)
    return (low - margin, high + margin), highest
