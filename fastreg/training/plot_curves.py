"""curves.png of a run: loss, validation error and learning rate."""

from __future__ import annotations

import io
from pathlib import Path

from fastreg import files, runs


def draw_curves(folder: Path) -> Path:
    """Draw log.jsonl of a run folder as curves.png.

    Args:
        folder: the run folder.

    Returns:
        The path of the image.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    rows = runs.read_rows(folder / "log.jsonl")
    steps = [row for row in rows if row["kind"] == "step"]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, error, rate = figure.subplots(1, 3)
    loss.plot([r["step"] for r in steps], [r["loss"] for r in steps], color="#9bb7d4", linewidth=0.8, label="step")
    loss.plot([r["step"] for r in epochs], [r["train_loss"] for r in epochs], color="#1f4e79", label="epoch mean")
    loss.plot([r["step"] for r in epochs], [r["val_loss"] for r in epochs], color="#c55a11", label="validation")
    loss.set(title="loss", xlabel="step")
    loss.legend(frameon=False)
    error.plot([r["epoch"] + 1 for r in epochs], [runs.selection_error(r) for r in epochs], color="#c55a11", marker=".")
    error.set(title="validation top-1 error (%)", xlabel="epoch", ylim=(0, 100))
    rate.plot([r["step"] for r in steps], [r["lr"] for r in steps], color="#548235")
    rate.set(title="learning rate", xlabel="step")
    for axes in (loss, error, rate):
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    path = folder / "curves.png"
    files.atomic_write(path, image.getvalue())
    return path
