"""The ratios of a busy machine, on work whose ratios are known: sleeping, and work that shares one core."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastreg.benchmarks.busy_machine import Ratios, commands, measure, one_busy_process, seconds

SLEEP = [sys.executable, "-c", "import time; time.sleep(1.0)"]


def test_limits():
    assert Ratios(1.4, 2.2).good
    assert not Ratios(1.41, 1.0).good
    assert not Ratios(1.0, 2.21).good


@pytest.mark.slow
def test_sleeping_processes_do_not_disturb_each_other(tmp_path):
    ratios = measure(SLEEP, SLEEP, tmp_path, 1)
    assert ratios.two_copies < 1.9  # one after the other: 2


def test_times_are_those_of_processes_side_by_side(tmp_path, monkeypatch):
    """Three rounds of (alone, beside, two): the median of each round's ratios."""
    times = iter([1.0, 1.2, 2.0, 10.0, 13.0, 21.0, 1.0, 9.0, 9.0])
    monkeypatch.setattr("fastreg.benchmarks.busy_machine.seconds", lambda lines, folder: next(times))
    assert measure([], [], tmp_path, 3) == pytest.approx((1.3, 2.1))


def test_folders_of_earlier_runs_are_removed(tmp_path):
    line = [sys.executable, "-c", "import os; os.mkdir('copy1')"]
    assert measure(line, SLEEP, tmp_path, 1, ("copy1",)).beside_one > 0


def test_the_busy_process_ends():
    with one_busy_process():
        pass
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True)
    assert "while True" not in children.stdout


def test_a_command_that_fails_is_named(tmp_path):
    with pytest.raises(RuntimeError, match="broken"):
        seconds([[sys.executable, "-c", "raise SystemExit('broken')"]], tmp_path)


def test_each_copy_has_its_own_folder():
    for work in ("training", "evaluation"):
        assert "copy1" in " ".join(commands(work, 1))
        assert "copy2" in " ".join(commands(work, 2))
