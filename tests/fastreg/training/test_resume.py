"""Every method resumes in the middle of an epoch bit for bit; a run that diverges stops before its checkpoint."""

from __future__ import annotations

import json
import math
import shlex
import signal
from pathlib import Path

import pytest
import torch

from fastreg import runs
from fastreg.cli import main
from fastreg.errors import InputError, RunError
from fastreg.training import make_config, train
from fastreg.training.config import to_dict
from fastreg.training.run_config import continue_config
from fastreg.training.train_step import TrainStep
from tests.fastreg.training.tiny_runs import REGS, Stopped, settings, stop_at


@pytest.mark.parametrize("reg", REGS)
def test_every_method_resumes_bit_identical(reg, data, tmp_path, quick):
    whole = train(settings(reg, tmp_path / "whole", data))
    with quick.context() as patch:
        patch.setattr(TrainStep, "update", stop_at(3))
        with pytest.raises(Stopped):
            train(settings(reg, tmp_path / "cut", data))
    assert runs.load_checkpoint(tmp_path / "cut" / "run" / "last.pt")["step"] == 2
    cut = train(settings(reg, tmp_path / "cut", data), resume="auto")
    one, two = (runs.load_checkpoint(folder / "last.pt") for folder in (whole, cut))
    assert one["step"] == two["step"] == 4
    for state in ("model", "ema"):
        assert all(torch.equal(a, two[state][key]) for key, a in one[state].items())
    for a, b in zip(one["optimizer"]["state"].values(), two["optimizer"]["state"].values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])
    losses = [[row["loss"] for row in runs.read_rows(f / "log.jsonl") if row["kind"] == "step"] for f in (whole, cut)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_weights_that_are_not_finite_are_never_saved(data, tmp_path, quick):
    """The loss of a step precedes the update, so a checkpoint could contain weights that the update broke."""

    def poisoned(self, at, steps, update=TrainStep.update):
        lr = update(self, at, steps)
        if at == 3:
            with torch.no_grad():
                next(self.model.parameters())[0, 0, 0, 0] = math.nan
        return lr

    quick.setattr(TrainStep, "update", poisoned)
    with pytest.raises(
        RunError, match=r"no longer finite at step 4 .*`resume` .*run and `allow_changes`.*last\.pt was saved before"
    ):
        train(settings("none", tmp_path, data))
    saved = runs.load_checkpoint(tmp_path / "run" / "last.pt")
    assert saved["step"] == 2
    assert all(torch.isfinite(value).all() for value in saved["model"].values())
    assert not (tmp_path / "run" / "best.pt").exists()


def test_the_steps_before_a_loss_that_is_not_finite_are_logged(data, tmp_path, quick):
    def broken(self, batch, step, *more, run=TrainStep.forward_backward):
        return run(self, batch, step, *more) * (math.nan if step == 2 else 1)

    quick.setattr(TrainStep, "forward_backward", broken)
    with pytest.raises(RunError, match=r"loss is nan at step 3 \(epoch 1, .* `resume` auto: there is no checkpoint"):
        train(settings("none", tmp_path, data, log_interval=100, recovery_interval=100))
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
        patch.setattr(TrainStep, "update", stop_at(5))
        assert command("--lr", "0.05") == 1
    before = last.read_bytes()
    capsys.readouterr()
    assert command("--resume", "auto", "--allow-changes", "--lr", "1e25") == 1
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith("fastreg: the loss is nan at step 6 (epoch 2, learning rate ")
    then = f"then continue with --resume {last.parent} and --allow-changes; {last} was saved before this step."
    assert sentence.endswith(f"lower --lr or set --clip-grad, {then}")
    assert last.read_bytes() == before
    assert command("--resume", str(last.parent), "--allow-changes", "--lr", "0.05") == 0
    steps = [row["step"] for row in runs.read_rows(log) if row["kind"] == "step"]
    assert steps == list(range(1, 9))
    assert runs.load_checkpoint(last)["step"] == 8


@pytest.fixture
def commands(quick, data, tmp_path, capsys):
    """``run(line)`` runs a command in an empty folder, with no default data: ``(exit code, error)``."""
    quick.chdir(tmp_path)
    quick.delenv("FASTREG_DATA")

    def run(line: str) -> tuple[int, str]:
        quick.setattr("sys.argv", shlex.split(line))
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, capsys.readouterr().err.strip()

    return run


@pytest.fixture
def line(data) -> str:
    return (
        f"fastreg train cifar100 --data-dir {data / 'cifar100'} --model tiny -b 4 --size 16 --epochs 2 --reg mixup "
        "--mixup-off-epoch 1 --lr 0.05 --device cpu -j 1 --log-interval 1 --recovery-interval 2"
    )


def stop_in_step_6(quick, commands, line: str) -> str:
    """The message of a run that is asked to stop."""

    def update(self, at, steps, update=TrainStep.update):
        if at == 5:
            signal.raise_signal(signal.SIGTERM)
        return update(self, at, steps)

    with quick.context() as patch:
        patch.setattr(TrainStep, "update", update)
        code, errors = commands(line)
    assert code == 1
    return errors.splitlines()[-1]


@pytest.mark.parametrize("output", ["", "--output elsewhere", "--output {tmp_path}/absolute"])
def test_a_stopped_run_prints_the_command_that_continues_it(output, quick, commands, line, tmp_path):
    output = output.format(tmp_path=tmp_path)
    assert commands(f"{line} --name whole")[0] == 0
    sentence = stop_in_step_6(quick, commands, f"{line} {output}")
    folder = Path(output.removeprefix("--output ") or "runs", "cifar100-tiny-mixup")
    assert sentence == f"fastreg: stopped at step 6; continue with: fastreg train cifar100 --resume {folder}"
    before = json.loads((folder / "config.json").read_text())
    assert commands(sentence.partition("continue with: ")[2])[0] == 0
    assert json.loads((folder / "config.json").read_text()) == before
    one, two = (runs.load_checkpoint(path / "last.pt") for path in (Path("runs/whole"), folder))
    assert one["step"] == two["step"] == 8
    assert all(torch.equal(value, two["model"][key]) for key, value in one["model"].items())


def test_a_flag_beside_a_path_is_refused_where_it_differs_and_taken_where_that_is_allowed(quick, commands, line):
    stop_in_step_6(quick, commands, line)
    resume = "fastreg train cifar100 --resume runs/cifar100-tiny-mixup"
    code, error = commands(f"{resume} --lr 0.1 --epochs 2")
    assert code == 2
    assert "(lr 0.05 then, 0.1 now): use them, or add --allow-changes" in error
    code, error = commands(resume.replace("cifar100", "cifar10", 1))
    assert code == 2
    assert "the run to resume trains on cifar100, not on cifar10" in error
    assert commands(f"{resume} --lr 0.1 --allow-changes")[0] == 0
    config = Path("runs/cifar100-tiny-mixup/config.json")
    assert json.loads(config.read_text())["lr"] == 0.1
    for damaged in ("{", json.dumps({**json.loads(config.read_text()), "batch_size": None})):
        config.write_text(damaged)
        code, error = commands(resume)
        assert code == 2
        assert "config.json is missing or damaged" in error


def test_a_resumed_run_keeps_its_batch_on_other_world_sizes():
    """Micro-batches keep their size if possible, so the run is the same bit for bit."""
    run = to_dict(make_config("imagenet", gpu=False, world=2, lr=0.3, batch_size=16)[0])
    assert (run["global_batch"], run["lr"]) == (32, 0.3)
    for world, batch, accumulate in ((1, 16, 2), (2, 16, 1), (4, 8, 1)):
        config, _ = continue_config("imagenet", run, gpu=False, world=world)
        assert (config.batch_size, config.grad_accum_steps) == (batch, accumulate)
        assert {**to_dict(config), "batch_size": 16, "grad_accum_steps": 1} == run
    assert continue_config("imagenet", run, gpu=False, grad_accum_steps=4)[0].batch_size == 8
    with pytest.raises(InputError, match="the run's batch of 32 does not divide by 3 processes"):
        continue_config("imagenet", run, gpu=False, world=3)


@pytest.mark.parametrize(("processes", "batch", "now"), [(7, 4, (7, 2)), (3, 20, (2, 15)), (3, 16, (2, 12))])
def test_fewer_processes_never_get_larger_micro_batches(processes, batch, now):
    """Larger micro-batches may not fit into the memory of the GPU."""
    run = to_dict(make_config("imagenet", gpu=False, world=processes, batch_size=batch)[0])
    config, _ = continue_config("imagenet", run, gpu=False, world=2)
    assert (config.grad_accum_steps, config.batch_size) == now
    assert 2 * config.grad_accum_steps * config.batch_size == config.global_batch == processes * batch
    assert config.lr == run["lr"]


def test_a_recipe_beside_a_path_brings_its_settings_unless_it_is_the_runs():
    run = to_dict(make_config("imagenet", gpu=True, recipe="paper/imagenet/mixup", epochs=5, lr=0.3)[0])
    for given in ({}, {"recipe": "paper/imagenet/mixup"}):
        assert to_dict(continue_config("imagenet", run, gpu=True, **given)[0]) == run
    config, _ = continue_config("imagenet", run, gpu=True, recipe="short/imagenet", lr=0.2)
    assert (config.model, config.epochs, config.batch_size, config.lr) == ("resnet18", 8, 32, 0.2)


@pytest.mark.slow
def test_auto_is_the_newest_run_of_the_name_with_these_settings(data, tmp_path, quick):
    def go(alpha: float, resume: str | None = "auto", allow: bool = False, **more) -> str:
        own = {"name": None, "recovery_interval": 9, "reg_args": {"alpha": alpha}, **more}
        return train(settings("mixup", tmp_path, data, **own), resume=resume, allow_changes=allow).name

    first = "cifar100-tiny-mixup-ls0.1"
    assert [go(alpha, None) for alpha in (0.2, 0.2, 0.4)] == [first, f"{first}-2", f"{first}-3"]
    assert go(0.2) == f"{first}-2"
    assert go(0.2, workers=2) == f"{first}-2"
    assert go(0.4) == f"{first}-3"
    (tmp_path / f"{first}-2" / "config.json").write_text("{")
    assert go(0.2) == first
    assert go(0.2, allow=True) == f"{first}-3"
    for changes in ({"alpha": 0.3}, {"alpha": 0.2, "batch_size": 8}):
        with pytest.raises(InputError, match=f"{first}-3 was started with other settings"):
            go(**changes)
