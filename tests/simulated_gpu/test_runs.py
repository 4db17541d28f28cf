"""Whole training runs on the simulated GPU: loader, steps, loss log, validation, checkpoints, resume."""

from __future__ import annotations

import json
from functools import partial

import pytest

from fastreg import models, runs
from fastreg.models import pyramidnet
from fastreg.training import train, trainer
from tests.fastreg.training import tiny_runs as tiny

REGS = [
    "mixup+cutmix",
    *(pytest.param(reg, marks=pytest.mark.slow) for reg in ("adversarial", "shakedrop", "ood_svhn")),
]
# outside of the steps: the loss log, the check of the weights, validation, checkpoints
INSIDE = ("forward_backward", "update", "draw", "advance", "augment", "take", "ship_batches")


@pytest.fixture
def kept(quick):
    """Checkpoints stay in memory: fake tensors have no content to write."""
    states = {}
    quick.setattr(runs, "save_checkpoint", lambda path, state: states.__setitem__(path.name, state))
    quick.setattr(trainer, "draw_curves", lambda folder: None)
    return states


@pytest.mark.parametrize("reg", REGS)
def test_a_run(reg, gpu, quick, kept, data, tmp_path):
    quick.setitem(models.MODELS, "tiny", partial(pyramidnet.PyramidNet, 8, 12, False))
    config = tiny.settings(reg, tmp_path, data, device="cuda", batch_size=8, epochs=2, log_interval=1)
    folder = train(config)
    assert sorted(kept) == ["best.pt", "last.pt"]
    assert kept["last.pt"]["step"] == 4
    assert gpu.launches
    assert not [wait for wait in gpu.waits if wait.split(":")[1] in INSIDE]
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert sum("lr" in row for row in rows) == 4
