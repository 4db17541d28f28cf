"""Training steps of the GPU check: on the CPU a mode agrees with its reference; a step that is left out does not."""

from __future__ import annotations

import pytest
import torch

from fastreg.benchmarks.gpu_check.check import run_check
from fastreg.benchmarks.gpu_check.train_steps import MODES, REGS, losses, train_step_checks
from fastreg.methods import METHODS
from fastreg.training.train_step import TrainStep

CPU = torch.device("cpu")
CHECKS = {check.name: check for check in train_step_checks()}


def test_every_method_is_checked_in_every_mode():
    assert set(REGS) >= set(METHODS)
    assert {f"step {reg}, {mode}" for reg in METHODS for mode in MODES} <= CHECKS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step cutmix+shakedrop, bf16", "step mixup, accumulation", "step ood_gan, average"])
def test_a_step_agrees_with_its_reference(name):
    result = run_check(CHECKS[name], CPU, {})
    assert result["ok"], result


def test_an_update_that_is_left_out_is_found(monkeypatch):
    check = CHECKS["step mixup, bf16"]
    wanted = check.reference()
    monkeypatch.setattr(TrainStep, "update", lambda self, step, steps: 0.0)
    result = run_check(check._replace(reference=lambda: wanted, group=""), CPU)
    assert "largest difference" in result["detail"]


def test_a_moving_average_is_compared():
    plain, average = (losses("none", settings, CPU)[1] for settings in ({}, {"model_ema_decay": 0.9}))
    assert 0 < average < 0.5 * plain
