"""curves.png: one unit on the horizontal axes, and losses that stay visible beside an outlier."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastreg.training.plot_curves import draw_curves, epochs_of_steps, loss_limits

STEPS = 10  # of an epoch


def write_log(folder, first_loss=2.3, epochs=4, **more):
    rows = []
    for step in range(1, epochs * STEPS + 1):
        loss = first_loss if step == 1 else 2.0 - step / (epochs * STEPS)
        rows.append({"kind": "step", "step": step, "epoch": (step - 1) // STEPS, "loss": loss, "lr": 0.1})
    for epoch in range(epochs):
        row = {"kind": "epoch", "epoch": epoch, "step": (epoch + 1) * STEPS, "train_loss": 2.0 - epoch / epochs}
        val = first_loss if epoch == 0 else 2.1 - epoch / epochs
        rows.append(row | {"val_loss": val, "val_top1_error": 60.0 - epoch} | more)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures = []
    save = Figure.savefig

    def record(figure, *arguments, **options):
        figures.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", record)
    return figures


@pytest.mark.parametrize("first", [2.3, 309.0, 921.0])
def test_losses_beside_a_large_first_one_take_most_of_the_axis(tmp_path, drawn, first):
    folder = tmp_path / "my run"
    folder.mkdir()
    write_log(folder, first)
    with Image.open(draw_curves(folder)) as image:
        assert min(image.size) > 300
    (figure,) = drawn
    assert figure.get_suptitle() == "my run"
    loss, error, rate = figure.axes
    assert loss.get_title() == ("loss" if first < 100 else f"loss (cut off: up to {first:g})")
    bottom, top = (loss.transData.transform((1, value))[1] for value in (1.1, 2.0))
    assert (top - bottom) / loss.bbox.height > 0.5
    assert loss.get_ylim()[1] >= 2.0
    for axes in (loss, error, rate):
        assert axes.get_xlabel() == "epoch"
        assert axes.get_xlim() == (0, 4)
        assert all(tick == round(tick) for tick in axes.get_xticks())
    assert np.allclose(loss.lines[0].get_xdata(), np.arange(1, 41) / STEPS)


def test_steps_are_drawn_at_their_share_of_the_epochs():
    epochs = [{"epoch": 0, "step": 10}, {"epoch": 1, "step": 30}]  # a resumed run with smaller batches
    assert epochs_of_steps([{"step": step} for step in (1, 10, 20, 30)], epochs) == [0.1, 1.0, 1.5, 2.0]
    assert epochs_of_steps([], epochs) == []


def test_outliers_are_measured_by_the_median():
    assert loss_limits([921.0, 2.0, 1.9, 1.8]) == (pytest.approx((1.79, 2.01)), 921.0)
    assert loss_limits([6.9, 2.0, 1.9, 1.8]) == (None, 6.9)
    assert loss_limits([float("nan"), 2.0, float("inf")]) == (None, 2.0)
    assert loss_limits([]) == (None, 0.0)


def test_errors_of_averaged_weights_are_labeled(tmp_path, drawn):
    write_log(tmp_path, ema_val_top1_error=50.0, ema_val_loss=1.0)
    draw_curves(tmp_path)
    assert drawn[0].axes[1].get_title() == "validation top-1 error of the averaged weights (%)"
    assert drawn[0].axes[1].lines[0].get_ydata().tolist() == [50.0] * 4
