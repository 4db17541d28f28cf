"""The training loss: binary cross-entropy, class weights; and the errors that a run logs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastreg import runs
from fastreg.cli import main
from fastreg.errors import InputError
from fastreg.kernels.types import Targets
from fastreg.training import Config, train
from fastreg.training.loss import class_weights, make_loss, read_class_weight
from fastreg.training.plot_curves import draw_curves
from fastreg.training.train_step import TrainStep
from fastreg.training.trainer import _errors
from fastreg.training.validate import validate
from tests.fastreg.training.tiny_runs import ALONE, STATISTICS, settings
from tests.support import peer

Z = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 3
Y = torch.arange(6) % 5
PAIR = Targets(Y, Y.flip(0), torch.full((6,), 0.75))


class Labels:
    """The parts of a source that class weights depend on."""

    labels, classes = np.array([0, 0, 0, 1, 2, 2]), ("ant", "bee", "cat")

    def __len__(self) -> int:
        return len(self.labels)


@pytest.mark.parametrize(("threshold", "sums"), [(None, False), (0.2, False), (0.3, True)])
def test_the_binary_loss_is_timms(threshold, sums):
    timm, mixup = peer("timm.loss"), peer("timm.data.mixup")
    config = Config("cifar100", ls=0.1, bce_loss=True, bce_target_threshold=threshold, bce_sum=sums)
    theirs = timm.BinaryCrossEntropy(smoothing=0.0, target_threshold=threshold, sum_classes=sums)
    dense = mixup.mixup_target(Y, 5, lam=0.75, smoothing=0.1)
    torch.testing.assert_close(make_loss(config)(Z, PAIR), theirs(Z, dense))


def test_class_weights_are_pytorchs():
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.1])
    hard = Targets(Y, Y, torch.ones(6))
    loss = make_loss(Config("cifar100", ls=0.1), weight)(Z, hard)
    torch.testing.assert_close(loss, F.cross_entropy(Z, Y, weight, label_smoothing=0.1))
    loss = make_loss(Config("cifar100", bce_loss=True), weight)(Z, hard)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(Z, F.one_hot(Y, 5).float(), weight))


def test_balanced_weights_give_each_class_one_share():
    weights = class_weights("balanced", Labels())
    assert weights.tolist() == pytest.approx([6 / 9, 2.0, 1.0])
    assert weights[Labels.labels].mean() == 1
    assert class_weights({"bee": 3}, Labels()).tolist() == [1, 3, 1]
    assert class_weights(None, Labels()) is None


def test_bad_weights_are_named(tmp_path):
    empty = Labels()
    empty.classes = ("ant", "bee", "cat", "dog")
    with pytest.raises(InputError, match="`class_weight` is balanced, and class 'dog' has no image"):
        class_weights("balanced", empty)
    with pytest.raises(InputError, match="unknown class in `class_weight` 'bees': known are ant, bee, cat; did you"):
        class_weights({"bees": 2}, Labels())
    with pytest.raises(InputError, match=r"`class_weight`: the file 'nofile\.json' cannot"):
        read_class_weight("nofile.json")
    file = tmp_path / "weights.json"
    file.write_text("[1, 2]")
    with pytest.raises(InputError, match="is not a JSON object of numbers by name of the class"):
        read_class_weight(str(file))
    file.write_text('{"bee": 2}')
    assert read_class_weight(str(file)) == {"bee": 2}
    assert read_class_weight("balanced") == "balanced"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"bce_sum": True}, "`bce_sum` is for `bce_loss`"),
        ({"bce_target_threshold": 0.2}, "`bce_target_threshold` is for `bce_loss`"),
        ({"bce_loss": True, "bce_target_threshold": 2.0}, "`bce_target_threshold` is 2: give at least 0 and at most 1"),
        ({"class_weight": "equal"}, "`class_weight` is 'equal': give balanced, or numbers by name"),
        ({"class_weight": {"bee": -1}}, "`class_weight` of 'bee' is -1: give a number of at least 0"),
    ],
)
def test_bad_settings_are_named(wrong, words):
    with pytest.raises(InputError, match=words):
        Config("cifar100", **wrong)


def test_a_run_with_both_losses_and_weights_resumes(quick, data, tmp_path):
    """The settings are in config.json; another loss is another run."""
    chosen = {"bce_loss": True, "bce_target_threshold": 0.3, "class_weight": {"a": 2.0}}
    folder = train(settings("mixup", tmp_path, data, **chosen))
    stored = json.loads((folder / "config.json").read_text())
    assert {key: stored[key] for key in chosen} == chosen
    with pytest.raises(InputError, match="bce_loss True then, False now"):
        train(settings("mixup", tmp_path, data, class_weight={"a": 2.0}), resume=str(folder))


def test_the_step_has_the_loss_of_its_settings(quick, data):
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    step = TrainStep(settings("none", data, data, ls=0.0), 4, *STATISTICS, ALONE, class_weight=weight)
    z, y = torch.randn(8, 4), torch.arange(8) % 4
    torch.testing.assert_close(step.loss(z, Targets(y, y, torch.ones(8))), F.cross_entropy(z, y, weight))


def test_flags_reach_the_run(quick, data, tmp_path, monkeypatch, capsys):
    file = tmp_path / "weights.json"
    file.write_text('{"b": 0.5}')
    words = "train cifar100 --model tiny --epochs 1 -b 4 --bce-loss --bce-target-thresh 0.2 --bce-sum --device cpu"
    words += f" --class-weight {file} --output {tmp_path} --name run"
    monkeypatch.setattr("sys.argv", ["fastreg", *words.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, capsys.readouterr().err
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert (stored["bce_loss"], stored["bce_target_threshold"], stored["bce_sum"]) == (True, 0.2, True)
    assert stored["class_weight"] == {"b": 0.5}
    (row,) = (row for row in runs.read_rows(tmp_path / "run/log.jsonl") if row["kind"] == "epoch")
    assert "val_top5_error" not in row  # four classes


class Fixed(torch.nn.Module):
    """Logits that are given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.scale = logits, torch.nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(images)]


class Batches:
    size = 8

    def __init__(self, labels: torch.Tensor) -> None:
        self.labels = labels

    def batches(self):
        from fastreg.kernels import Batch

        yield Batch(torch.zeros(len(self.labels), 8, 8, 3, dtype=torch.uint8), self.labels, torch.arange(99), None)


@pytest.mark.parametrize("C", [4, 5, 9])
def test_validation_errors(C):
    logits = torch.randn(40, C, generator=torch.Generator().manual_seed(C))
    labels = torch.arange(40) % C
    row = validate(Fixed(logits), Batches(labels), *STATISTICS, torch.float32)
    rank = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert row["val_top1_error"] == pytest.approx(100 * (rank >= 1).double().mean().item())
    if C < 5:
        assert row.keys() == {"val_top1_error", "val_loss"}
    else:
        assert row["val_top5_error"] == pytest.approx(100 * (rank >= 5).double().mean().item())


def test_errors_in_words():
    row = {"val_top1_error": 40.0}
    assert _errors(row) == "top-1 error 40.00 %"
    assert _errors(row | {"val_top5_error": 10.0}) == "top-1 error 40.00 %, top-5 10.00 %"
    averaged = row | {"val_top5_error": 10.0, "ema_val_top1_error": 39.0, "ema_val_top5_error": 9.0}
    words = "top-1 error 40.00 % of the model, 39.00 % of its averaged weights; top-5 10.00 %, 9.00 %"
    assert _errors(averaged) == words


def test_curves_of_a_run_that_began_without_top5(tmp_path):
    log = runs.Log(tmp_path)
    log.truncate(0, 0)
    for epoch in range(3):
        row = {"epoch": epoch, "step": epoch + 1, "train_loss": 1.0, "val_loss": 1.0, "val_top1_error": 50.0}
        log.add("epoch", [row | ({"val_top5_error": 20.0} if epoch else {})])
    assert draw_curves(tmp_path).stat().st_size > 1000
