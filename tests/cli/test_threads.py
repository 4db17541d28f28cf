"""OpenMP's variables: set by the command line only, before PyTorch is loaded, never over the user's values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastreg import environment
from fastreg.cli import threads
from tests.support import ROOT

COMMAND = """
import os, sys
from fastreg.cli import main
assert "torch" not in sys.modules
assert os.environ.get("OMP_WAIT_POLICY") == {before!r}
sys.argv = ["fastreg", "--version"]
try:
    main()
finally:
    assert "torch" not in sys.modules
    print(os.environ["OMP_WAIT_POLICY"])
"""
LIBRARY = """
import os
import fastreg.training.trainer, fastreg.evaluation.engine
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("OMP_NUM_THREADS"))
"""


def child(code: str, **env: str) -> str:
    """The last line that a Python process prints."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    clean |= {"PYTHONPATH": str(ROOT), **env}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_command_lets_waiting_threads_sleep():
    assert child(COMMAND.format(before=None)) == "passive"


def test_the_users_policy_stays():
    assert child(COMMAND.format(before="active"), OMP_WAIT_POLICY="active") == "active"


@pytest.mark.slow
def test_a_library_import_sets_nothing():
    assert child(LIBRARY) == "None None"


@pytest.mark.parametrize(
    ("granted", "own", "expected"), [(2, None, "2"), (2, "7", "7"), (8, None, None), (1, None, "1")]
)
def test_a_container_has_as_many_threads_as_cpus(granted, own, expected, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("OMP_NUM_THREADS", own or "")
    if own is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "available_cpus", lambda: 8)
    monkeypatch.setattr(threads, "granted_cpus", lambda: granted)
    threads.set_thread_defaults()
    assert os.environ.get("OMP_NUM_THREADS") == expected


def test_nothing_is_set_once_pytorch_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    threads.set_thread_defaults()
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/job\n", {"cpu.max": "max 100000\n", "job/cpu.max": "150000 100000\n"}, 2),
        ("0::/job\n", {"cpu.max": "50000 100000\n", "job/cpu.max": "max 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {}, 8),
        (
            "4:memory:/x\n1:cpu,cpuacct:/y\n",
            {"cpu/y/cpu.cfs_quota_us": "300000", "cpu/y/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("0::/\n", {"cpu.max": "damaged\n"}, 8),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 8),
    ],
)
def test_the_quota_of_a_control_group_is_read(groups, files, expected, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(environment, "available_cpus", lambda: 8)
    (tmp_path / "own").write_text(groups)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert environment.granted_cpus(tmp_path, tmp_path / "own") == expected


def test_there_is_a_cpu_where_there_are_no_control_groups(tmp_path):
    assert environment.granted_cpus(tmp_path, tmp_path / "missing") == environment.available_cpus() >= 1
