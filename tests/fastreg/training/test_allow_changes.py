"""A run that is resumed with other settings continues where it was, with these settings."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch

from fastreg import runs
from fastreg.errors import InputError
from fastreg.training import run_log, train
from fastreg.training.train_step import TrainStep
from tests.fastreg.training.tiny_runs import ALONE, STATISTICS, Stopped, advance, settings, stop_at

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def cut(data, tmp_path):
    """A run of two epochs of four steps of four images, cut off after 6 steps; ``again(**changes)`` continues it."""

    def again(allow: bool = True, **changes) -> Path:
        config = settings("none", tmp_path, data, epochs=2, **changes)
        return train(config, resume="auto", allow_changes=allow)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "update", stop_at(6))
        with pytest.raises(Stopped):
            train(settings("none", tmp_path, data, epochs=2))
    assert runs.load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 6
    return again


def watch(quick) -> list[tuple[int, int, list[int]]]:
    """(epoch, step, samples) of every step from here on."""
    steps = []

    def run(self, batch, step, micro, size, epoch=0, run=TrainStep.forward_backward):
        steps.append((epoch, step, batch.indices.tolist()))
        return run(self, batch, step, micro, size, epoch)

    quick.setattr(TrainStep, "forward_backward", run)
    return steps


@pytest.mark.parametrize(("batch_size", "first"), [(2, 12), (8, 3), (1, 24)])
def test_another_batch_size_continues_at_the_same_image(quick, data, cut, batch_size, first):
    """Half of the second epoch is left, for any numbering of its steps."""
    steps = watch(quick)
    folder = cut(batch_size=batch_size)
    assert [(epoch, step) for epoch, step, _ in steps] == [(1, first + k) for k in range(8 // batch_size)]
    rows = [row for row in runs.read_rows(folder / "log.jsonl") if row["kind"] == "step"]
    assert [row["position"] for row in rows] == [*range(4, 25, 4), *range(24 + batch_size, 33, batch_size)]
    assert runs.load_checkpoint(folder / "last.pt")["position"] == 32
    seen = [sample for _, _, samples in steps for sample in samples]
    steps.clear()
    train(settings("none", folder.parent, data, epochs=2, name="other"))
    order = [sample for epoch, _, samples in steps if epoch == 1 for sample in samples]
    assert seen == order[8:]


def test_a_batch_that_does_not_divide_the_position_is_an_error(cut):
    with pytest.raises(InputError, match=r"8 images into an epoch, between two steps of 16: .* such as 4"):
        cut(batch_size=16)


def test_the_global_batch_cannot_change_without_allow_changes(quick, cut):
    """As on half the processes: twice the accumulation is the same run, another batch is not."""
    with pytest.raises(InputError, match="global_batch 4 then, 8 now"):
        cut(allow=False, grad_accum_steps=2)
    steps = watch(quick)
    cut(allow=False, batch_size=2, grad_accum_steps=2)
    assert [step for _, step, _ in steps] == [6, 6, 7, 7]


@pytest.mark.parametrize(
    "change", [{"momentum": 0.5}, {"nesterov": False}, {"weight_decay": 0.1}, {"lr": 0.5}, {"clip_grad": 1e-3}]
)
def test_hyperparameters_are_those_of_the_new_settings(data, change):
    old, new, other = (TrainStep(settings("none", data, data, **c), 4, *STATISTICS, ALONE) for c in ({}, change, {}))
    advance(old, range(2))
    for engine in (new, other):
        engine.load(copy.deepcopy(old.state()))  # torch would share the momentum among them
    kept = {key: new.optimizer.param_groups[0][key] for key in change if key in new.optimizer.param_groups[0]}
    assert kept == {key: change[key] for key in kept}
    assert kept or "clip_grad" in change
    losses = [advance(engine, range(2, 5)) for engine in (old, other, new)]
    assert losses[0] == losses[1]
    assert losses[2][0] == losses[0][0]  # the same weights ...
    assert losses[2][2] != losses[0][2]  # ... that then differ


def test_an_average_that_is_new_starts_from_the_weights(data):
    old = TrainStep(settings("none", data, data, model_ema_decay=None), 4, *STATISTICS, ALONE)
    advance(old, range(2))
    new = TrainStep(settings("none", data, data, model_ema_decay=0.9), 4, *STATISTICS, ALONE)
    new.load(old.state())
    for name, value in new.ema.state_dict().items():
        assert torch.equal(value, old.model.state_dict()[name]), name


@pytest.mark.parametrize(("then", "now"), [("fp32", "fp16"), ("fp16", "bf16"), ("fp16", "fp16")])
def test_precision_may_change_and_its_scaler_starts_anew(data, then, now):
    old, new = (TrainStep(settings("none", data, data, precision=p), 4, *STATISTICS, ALONE) for p in (then, now))
    advance(old, range(1))
    if old.scaler.is_enabled():
        old.scaler.update(2.0**7)
    new.load(old.state())
    assert all(math.isfinite(loss) for loss in advance(new, range(1, 3)))
    if now == "fp16":
        assert new.scaler.get_scale() == (2.0**7 if then == now else 2.0**16)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"opt": "adam"}, "opt sgd"), ({"model": "resnet18"}, "model tiny"), ({"norm_weight_decay": False}, "norm_w")],
)
def test_settings_that_the_checkpoint_does_not_fit_are_refused_even_with_allow_changes(cut, change, message):
    with pytest.raises(
        InputError, match=f"started with {message}.*fits nothing else: use the same, or start a new run"
    ):
        cut(**change)


def test_config_and_environment_are_rewritten_on_resume(quick, cut, tmp_path):
    config, environment = (tmp_path / "run" / f"{name}.json" for name in ("config", "environment"))
    assert json.loads(config.read_text())["lr"] == 0.05
    quick.setattr(run_log, "environment", lambda: {"date": "later"})
    cut(lr=0.1)
    assert json.loads(config.read_text())["lr"] == 0.1
    assert json.loads(environment.read_text()) == {"date": "later"}
    quick.setattr(run_log, "environment", lambda: {"date": "too late"})
    cut(lr=0.1)  # complete: nothing was done with these settings
    assert json.loads(environment.read_text()) == {"date": "later"}


def test_a_run_of_a_version_without_a_setting_resumes_with_its_default(cut, tmp_path):
    last = tmp_path / "run" / "last.pt"
    state = runs.load_checkpoint(last)
    del state["config"]["model_ema_warmup"]
    runs.save_checkpoint(last, state)
    with pytest.raises(InputError, match="model_ema_warmup False then, True now"):
        cut(allow=False, model_ema_warmup=True)
    assert runs.load_checkpoint(cut(allow=False) / "last.pt")["step"] == 8


def test_weights_alone_do_not_resume_a_run(cut, tmp_path):
    (tmp_path / "run" / "best.pt").rename(tmp_path / "run" / "last.pt")
    with pytest.raises(InputError, match=r"last\.pt contains weights only, as best\.pt does: put back"):
        cut()
