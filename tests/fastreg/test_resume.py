"""Every method resumes in the middle of an epoch bit for bit; a run that diverges stops before its checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fastreg import runs
from fastreg.cli import main
from fastreg.errors import RunError
from fastreg.training import train
from fastreg.training.engine import Engine
from tests.fastreg.tiny import REGS, settings, shrink, silent, write_data


class Stopped(Exception):
    """A run cut off between two steps."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def quick(monkeypatch, data):
    shrink(monkeypatch, data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield monkeypatch
    torch.set_num_threads(threads)


def stop_at(step: int):
    def update(self, at, steps, update=Engine.update):
        if at == step:
            raise Stopped
        return update(self, at, steps)

    return update


@pytest.mark.parametrize("reg", REGS)
def test_every_method_resumes_bit_identical(reg, data, tmp_path, quick):
    whole = train(settings(reg, tmp_path / "whole", data), say=silent)
    with quick.context() as patch:
        patch.setattr(Engine, "update", stop_at(3))
        with pytest.raises(Stopped):
            train(settings(reg, tmp_path / "cut", data), say=silent)
    assert runs.load_checkpoint(tmp_path / "cut" / "run" / "last.pt")["step"] == 2
    cut = train(settings(reg, tmp_path / "cut", data), resume="auto", say=silent)
    one, two = (runs.load_checkpoint(folder / "last.pt") for folder in (whole, cut))
    assert one["step"] == two["step"] == 4
    for part in ("model", "ema"):
        assert all(torch.equal(a, two[part][key]) for key, a in one[part].items())
    for a, b in zip(one["optimizer"]["state"].values(), two["optimizer"]["state"].values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])
    losses = [[row["loss"] for row in runs.read_rows(f / "log.jsonl") if row["kind"] == "step"] for f in (whole, cut)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_weights_that_are_not_finite_are_never_saved(data, tmp_path, quick):
    """The loss of a step is taken before its update, so a checkpoint after it could hold what the update broke."""

    def poisoned(self, at, steps, update=Engine.update):
        lr = update(self, at, steps)
        if at == 3:
            with torch.no_grad():
                next(self.model.parameters())[0, 0, 0, 0] = math.nan
        return lr

    quick.setattr(Engine, "update", poisoned)
    with pytest.raises(RunError, match=r"weights are no longer finite at step 4 .*--resume auto.*last\.pt is from bef"):
        train(settings("none", tmp_path, data), say=silent)
    saved = runs.load_checkpoint(tmp_path / "run" / "last.pt")
    assert saved["step"] == 2
    assert all(torch.isfinite(value).all() for value in saved["model"].values())
    assert not (tmp_path / "run" / "best.pt").exists()


def test_the_steps_before_a_loss_that_is_not_finite_are_logged(data, tmp_path, quick):
    def broken(self, batch, step, *more, run=Engine.forward_backward):
        return run(self, batch, step, *more) * (math.nan if step == 2 else 1)

    quick.setattr(Engine, "forward_backward", broken)
    with pytest.raises(RunError, match=r"loss is nan at step 3 \(epoch 1, "):
        train(settings("none", tmp_path, data, log_interval=100, recovery_interval=100), say=silent)
    rows = runs.read_rows(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_a_loss_that_is_not_finite_ends_the_command_and_leaves_its_checkpoint(tmp_path, quick, capsys):
    last, log = tmp_path / "run" / "last.pt", tmp_path / "run" / "log.jsonl"

    def command(*more: str) -> int:
        words = "fastreg train cifar100 --model tiny -b 4 --size 16 --epochs 2 --device cpu -j 1 --log-interval 1"
        quick.setattr("sys.argv", [*words.split(), "--output", str(tmp_path), "--name", "run", *more])
        try:
            main()
        except SystemExit as end:
            return end.code or 0
        return 0

    with quick.context() as patch:
        patch.setattr(Engine, "update", stop_at(5))
        assert command("--lr", "0.05") == 1
    before = last.read_bytes()
    capsys.readouterr()
    assert command("--resume", "auto", "--allow-changes", "--lr", "1e25") == 1
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith("fastreg: the loss is nan at step 6 (epoch 2, learning rate ")
    assert sentence.endswith(f"then continue with --resume auto --allow-changes; {last} is from before it.")
    assert last.read_bytes() == before
    assert command("--resume", "auto", "--allow-changes", "--lr", "0.05") == 0
    steps = [row["step"] for row in runs.read_rows(log) if row["kind"] == "step"]
    assert steps == list(range(1, 9))
    assert runs.load_checkpoint(last)["step"] == 8
