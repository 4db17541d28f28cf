"""After a signal all processes soon stop after the same step, also at the end of an epoch."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from fastreg import runs
from fastreg.distributed import World
from fastreg.errors import RunError
from fastreg.training import resume as resuming
from fastreg.training import signals as stopping
from fastreg.training import train
from fastreg.training import trainer as loop
from fastreg.training.train_step import TrainStep
from tests.fastreg.training import tiny_runs as tiny
from tests.fastreg.training.processes import start_torchrun
from tests.fastreg.training.tiny_runs import ALONE, settings
from tests.support import train_words, write_tiny_imagenet


@pytest.mark.parametrize(
    ("number", "patience"),
    [(signal.SIGTERM, stopping.PATIENCE), (signal.SIGHUP, stopping.PATIENCE), (signal.SIGINT, stopping.TYPED)],
)
def test_repeated_signals_count_as_one_and_a_later_signal_interrupts(number, patience, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    before = signal.getsignal(number)
    with stopping.stop_signals(ALONE) as should_stop:
        assert not should_stop()
        for seconds in (0.0, 0.2, patience):
            now[0] = 100 + seconds
            signal.raise_signal(number)
            assert should_stop()
        now[0] += 0.1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_signal_is_acknowledged_at_once_on_rank_0(number, rank, capfd):
    with stopping.stop_signals(World(rank, 2, torch.device("cpu"))):
        signal.raise_signal(number)
        signal.raise_signal(number)
    again = "; press Ctrl-C again to interrupt" if number == signal.SIGINT else ""
    assert capfd.readouterr().err == (f"\nstopping after this step{again}\n" if rank == 0 else "")


def test_a_terminals_ctrl_c_reaches_several_processes_twice(monkeypatch):
    """The terminal sends the first; torchrun sends the second, maybe seconds later."""
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    shutdown = stopping.GracefulShutdown(World(1, 2, torch.device("cpu")))
    for seconds in (0.0, stopping.TYPED + 0.1, stopping.PATIENCE):
        now[0] = 100 + seconds
        shutdown.receive(signal.SIGINT, None)
    now[0] += 0.1
    with pytest.raises(KeyboardInterrupt):
        shutdown.receive(signal.SIGINT, None)


def test_a_run_under_nohup_continues_when_its_terminal_closes():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.stop_signals(ALONE) as should_stop:
            signal.raise_signal(signal.SIGHUP)
            assert not should_stop()
    finally:
        signal.signal(signal.SIGHUP, before)


class Sum:
    """``all_reduce`` among threads, in the order of their calls."""

    def __init__(self, size: int):
        self.size, self.barrier, self.total = size, threading.Barrier(size), 0.0

    def __call__(self, values: torch.Tensor) -> None:
        if self.barrier.wait() == 0:
            self.total = torch.zeros_like(values)
        self.barrier.wait()
        with LOCK:
            self.total += values
        self.barrier.wait()
        values.copy_(self.total)


LOCK = threading.Lock()


@pytest.mark.parametrize(("seconds", "every"), [(0.0, stopping.STEPS), (0.25, 4), (3.0, 1)])
def test_all_processes_stop_after_the_same_step_without_an_exchange_in_each(seconds, every, monkeypatch):
    """A step takes ``seconds``; each process has its own clock."""
    size, meetings, last = 3, [], {}
    total, clock = Sum(size), threading.local()
    monkeypatch.setattr(stopping.time, "monotonic", lambda: getattr(clock, "now", 0.0))

    def reduce(values):
        meetings.append(1)
        total(values)

    monkeypatch.setattr(torch.distributed, "all_reduce", reduce)

    def process(rank: int) -> None:
        shutdown = stopping.GracefulShutdown(World(rank, size, torch.device("cpu")))
        for step in range(200):
            if rank == 1 and step == 30:
                shutdown.receive(signal.SIGTERM, None)
            clock.now = getattr(clock, "now", 0.0) + seconds
            if shutdown():
                last[rank] = step
                return

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(last) == size
    assert len(set(last.values())) == 1
    assert 30 <= last[0] < 30 + every
    assert len(meetings) <= size * (2 + last[0] // every)


def stop_after(quick, step: int, number: int = signal.SIGTERM) -> None:
    """A signal in the update of ``step``, counted from 0."""

    def update(self, at, steps, update=TrainStep.update):
        if at == step:
            signal.raise_signal(number)
        return update(self, at, steps)

    quick.setattr(TrainStep, "update", update)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_an_epochs_last_step_stops_before_its_validation(number, quick, data, tmp_path):
    """The validation may take longer than a scheduler waits; the resumed run validates."""
    validated = []

    def watch(*arguments, validate=loop.validate):
        validated.append(1)
        return validate(*arguments)

    quick.setattr(loop, "validate", watch)
    whole = train(settings("mixup", tmp_path / "whole", data, epochs=2))
    validated.clear()
    with quick.context() as patch:
        stop_after(patch, 3, number)
        with pytest.raises(RunError, match=r"stopped at step 4; continue with: fastreg train cifar100 --resume .*run$"):
            train(settings("mixup", tmp_path / "cut", data, epochs=2))
    assert not validated
    cut = train(settings("mixup", tmp_path / "cut", data, epochs=2), resume="auto")
    assert len(validated) == 4  # two epochs, of the weights and of their average
    one, two = (runs.load_checkpoint(folder / "last.pt") for folder in (whole, cut))
    assert all(torch.equal(value, two["model"][key]) for key, value in one["model"].items())
    assert (one["best"], one["step"]) == (two["best"], two["step"])
    rows = [[(r["kind"], r["epoch"], r["step"]) for r in runs.read_rows(f / "log.jsonl")] for f in (whole, cut)]
    assert rows[0] == rows[1]


def test_a_signal_in_a_validation_stops_after_it(quick, data, tmp_path):
    def validate(*arguments, validate=loop.validate):
        signal.raise_signal(signal.SIGTERM)
        return validate(*arguments)

    quick.setattr(loop, "validate", validate)
    with pytest.raises(RunError, match="stopped at step 4"):
        train(settings("none", tmp_path, data, epochs=2))
    saved = runs.load_checkpoint(tmp_path / "run" / "last.pt")
    assert (saved["step"], saved["ended"]) == (4, 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_no_process_leaves_before_the_checkpoint_is_written(rank, quick, data, tmp_path):
    """torchrun ends all processes when one exits."""
    happened = tiny.pretend_rank(quick, rank, tmp_path / "run")
    quick.setattr(runs, "save_checkpoint", lambda path, state: happened.append("save"))
    (tmp_path / "run").mkdir()
    config = settings("none", tmp_path, data, batch_size=2, recovery_interval=100)
    stop_after(quick, 1)
    with pytest.raises(RunError, match=r"stopped at step [234]"):
        train(config)
    assert happened[-1] == "barrier"
    assert happened.count("save") == (1 if rank == 0 else 0)


@pytest.mark.parametrize(
    ("size", "local", "command"),
    [
        (1, 1, "fastreg train imagenet --resume 'my runs/a'"),
        (4, 4, "fastreg train imagenet --resume 'my runs/a' --gpus 4"),
        (4, 2, "torchrun ... -m fastreg train imagenet --resume 'my runs/a'"),
    ],
)
def test_the_command_that_continues_has_as_many_processes(size, local, command, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    world = World(0, size, torch.device("cpu"))
    assert resuming.command_to_continue("imagenet", Path("my runs/a"), world) == command


@pytest.mark.slow
def test_two_processes_with_epochs_shorter_than_the_log_interval_stop_and_save(tmp_path):
    data = write_tiny_imagenet(tmp_path / "data")
    words = train_words(data, tmp_path, "two", "--epochs", "2000")
    child = start_torchrun("--standalone", "--nproc-per-node=2", "-m", "fastreg", *words)
    log = tmp_path / "two" / "log.jsonl"
    while not runs.read_rows(log):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert f"continue with: fastreg train imagenet --resume {tmp_path / 'two'} --gpus 2\n" in errors
    assert "forcefully" not in errors
    saved = runs.load_checkpoint(tmp_path / "two" / "last.pt")["step"]
    assert saved == runs.read_rows(log)[-1]["step"]
