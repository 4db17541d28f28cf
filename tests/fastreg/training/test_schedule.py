"""Learning rates beside the schedulers of timm and torch, at each step to 1e-9."""

from __future__ import annotations

import pytest
import torch

from fastreg.training import Config
from fastreg.training.flag_aliases import translate
from fastreg.training.schedule import learning_rate
from tests.support import peer

PER_EPOCH = 7


def optimizer(lr: float = 0.3) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(**settings) -> list[float]:
    config = Config("imagenet", lr=0.3, **settings)
    steps = config.epochs * PER_EPOCH
    return [learning_rate(config, step, steps) for step in range(steps)]


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {"sched": "cosine", "min_lr": 1e-3},
        {"sched": "cosine", "min_lr": 1e-3, "warmup_epochs": 3, "warmup_lr": 1e-4, "cooldown_epochs": 4},
        {"sched": "poly", "decay_rate": 1.7, "warmup_epochs": 2, "warmup_lr": 1e-5, "cooldown_epochs": 1},
        {"sched": "step", "decay_epochs": 8, "decay_rate": 0.3, "warmup_epochs": 5, "warmup_lr": 0.01},
    ],
)
def test_rates_are_timms(more, prefix):
    scheduler = peer("timm.scheduler")
    theirs_of, held = optimizer(), {key: value for key, value in more.items() if key != "sched"}
    theirs, epochs = scheduler.create_scheduler_v2(
        theirs_of, more["sched"], 20, step_on_epochs=False, updates_per_epoch=PER_EPOCH, warmup_prefix=prefix, **held
    )
    prefix = prefix and "warmup_epochs" in more
    settings = translate({**more, "epochs": 20, "warmup_prefix": prefix}, {"epochs": 1})
    found = rates(**settings, warmup_overlap=not prefix)
    assert len(found) == epochs * PER_EPOCH
    for step, rate in enumerate(found):
        theirs.step_update(step)
        assert rate == pytest.approx(theirs_of.param_groups[0]["lr"], rel=1e-9, abs=1e-15), step


@pytest.mark.parametrize("sched", ["cosine", "poly", "linear", "step", "constant"])
def test_rates_are_torchs(sched):
    """torchvision's sequence: linear warm-up, then the schedule over the steps that are left."""
    steps, first = 10 * PER_EPOCH, 2 * PER_EPOCH
    own = optimizer()
    rest = {
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(own, steps - first, eta_min=0.02),
        "poly": lambda: torch.optim.lr_scheduler.PolynomialLR(own, steps - first, power=2.5),
        "linear": lambda: torch.optim.lr_scheduler.LinearLR(own, 1.0, 0.1, total_iters=steps - first),
        "step": lambda: torch.optim.lr_scheduler.MultiStepLR(own, [steps // 2 - first], gamma=0.2),
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(own, 1.0),
    }[sched]
    warmup = torch.optim.lr_scheduler.LinearLR(own, start_factor=0.01, total_iters=first)
    theirs = torch.optim.lr_scheduler.SequentialLR(own, [warmup, rest()], milestones=[first])
    settings = {"cosine": {"min_lr": 0.02}, "poly": {"decay_rate": 2.5}, "linear": {"min_lr": 0.03}}
    settings["step"] = {"decay_rate": 0.2, "milestones": (0.5,)}
    found = rates(sched=sched, epochs=10, warmup=0.2, warmup_lr=0.003, **settings.get(sched, {}))
    for rate in found:
        assert rate == pytest.approx(own.param_groups[0]["lr"], rel=1e-9)
        own.step()
        theirs.step()


def test_a_cooldown_given_again_on_resume_is_the_same_run():
    """The run of 90 + 10 epochs has 100; the same flag on its settings lengthens it no further."""
    first = translate({"cooldown_epochs": 10}, {"epochs": 90})
    assert (first["epochs"], first["cooldown"]) == (100, 0.1)
    assert translate({"cooldown_epochs": 10}, first) == first


def test_rates_scale_with_the_batch_unless_they_are_given():
    from fastreg.training import make_config

    base = {"global_batch": 64, "lr": 0.4, "min_lr": 0.04, "warmup_lr": 0.004}
    config, _ = make_config("imagenet", gpu=False, settings=base, batch_size=16)
    assert (config.lr, config.min_lr, config.warmup_lr) == pytest.approx((0.1, 0.01, 0.001))
    config, _ = make_config("imagenet", gpu=False, settings=base, batch_size=16, min_lr=0.02)
    assert (config.lr, config.min_lr) == pytest.approx((0.1, 0.02))
