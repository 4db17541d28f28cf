"""Several ranks: other data or settings, a port in use, a rank that dies, and one list for all."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fastreg import files, runs
from fastreg.distributed import World, init_distributed, require_equal
from fastreg.errors import InputError, RunError
from tests.fastreg.training.processes import outputs, start_torchrun
from tests.support import command, environment, train_words, write_tiny_imagenet


def test_facts_that_differ_are_refused_with_both_values(monkeypatch):
    def gather(shares, own):
        shares[:] = [own, {**own, "lr": 0.2}, own]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    world = World(1, 3, torch.device("cpu"))
    with pytest.raises(InputError, match=r"`lr` is 0\.1 on rank 0 and 0\.2 on rank 1: give all ranks the same"):
        require_equal(world, {"epochs": 3, "lr": 0.1})
    require_equal(World(0, 1, torch.device("cpu")), {"lr": 0.1})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (["--lr", "0.007"], "--lr is 0.005 on rank 0 and 0.007 on rank 1"),
        (None, "`training data` is .* on rank 0 and .* on rank 1"),
    ],
)
def test_ranks_with_other_settings_or_data_end_before_the_first_step(image_folders, tmp_path, other, message):
    """Two processes that join by MASTER_ADDR and MASTER_PORT, as under srun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = image_folders
    if other is None:
        data = write_tiny_imagenet(tmp_path / "other", val=16)
        name = next((data / "train" / "class0").iterdir())
        name.write_bytes((data / "train" / "class1" / name.name.replace("_0_", "_1_")).read_bytes())
    children = []
    for rank, words in enumerate((["--lr", "0.005"], other or [])):
        env = environment(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        line = command(*train_words(data if rank else image_folders, tmp_path, "run", *words))
        pipe = subprocess.PIPE
        children.append(subprocess.Popen(line, env=env, stdout=pipe, stderr=pipe, text=True))
    errors = [child.communicate(timeout=600)[1] for child in children]
    assert [child.returncode for child in children] == [2, 2]
    assert re.search(message, errors[0]), errors
    assert "Traceback" not in errors[0] + errors[1]
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_one_sentence(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
        with (
            pytest.raises(RunError, match=r"rank 0 cannot join .*1:\d+: the port is in use; set MASTER_PORT"),
            init_distributed("cpu"),
        ):
            pass


@pytest.mark.slow
def test_a_rank_that_is_killed_is_named(image_folders, tmp_path):
    words = train_words(image_folders, tmp_path, "killed", "--epochs", "2000", "--log-interval", "1", "--gpus", "2")
    child = subprocess.Popen(
        command(*words), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not runs.read_rows(tmp_path / "killed" / "log.jsonl"):
        assert child.poll() is None
        time.sleep(0.05)
    ranks = [pid for pid in _descendants(child.pid) if _rank(pid) == "1"]
    os.kill(ranks[0], signal.SIGKILL)
    _, errors = child.communicate(timeout=600)
    assert child.returncode == 1
    assert "Traceback" not in errors
    assert "rank 1 was ended by SIGKILL, perhaps for want of memory: --resume auto continues the run" in errors


def _descendants(pid: int) -> list[int]:
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for one in children for below in _descendants(one)]


def _rank(pid: int) -> str:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry).get("RANK", "")


COUNT = """
import sys, torch
from fastreg.distributed import init_distributed
from fastreg.pipelines import file_list
from fastreg.training import Config
from fastreg.training.data import open_sets
calls, original = [], file_list._list
file_list._list = lambda base, classes: calls.append(base) or original(base, classes)
with init_distributed("cpu") as world:
    sets = open_sets(Config("imagenet", data_dir=sys.argv[1], batch_size=4), world)
    fingerprints = [source.fingerprint for source in sets]
    sys.stdout.write(f"{world.rank} {len(calls)} {fingerprints}\\n")  # one write: print makes two
    sys.stdout.flush()
"""


def test_rank_0_lists_and_the_others_receive(image_folders, tmp_path):
    (tmp_path / "count.py").write_text(COUNT)
    (out,) = outputs(start_torchrun("--standalone", "--nproc-per-node=2", tmp_path / "count.py", image_folders))
    rows = sorted(line.split(" ", 2) for line in out.splitlines())
    assert [(rank, calls) for rank, calls, _ in rows] == [("0", "2"), ("1", "0")]
    assert rows[0][2] == rows[1][2]


def test_temporary_files_of_killed_processes_are_swept(tmp_path):
    code = (
        "import os, signal, sys\nfrom fastreg.files import replacing\n"
        "with replacing(sys.argv[1]) as file:\n file.write(b'half')\n file.flush()\n"
        " os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "card.json"], env=environment(), check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".tmp")
    other = tmp_path / left.name.replace("-", "-elsewhere")
    other.write_text("of another machine")
    files.write_json(tmp_path / "new.json", {"a": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, "new.json"])
    assert json.loads((tmp_path / "new.json").read_text()) == {"a": 1}


def test_unequal_shares_of_a_quota_are_counted(tmp_path, monkeypatch):
    """Decoding threads by default: a container's quota, divided among the ranks of the machine."""
    from fastreg import environment as env
    from fastreg.pipelines import decoder

    monkeypatch.setattr(env, "available_cpus", lambda: 64)
    (tmp_path / "cpu.max").write_text("600000 100000\n")
    (tmp_path / "self").write_text("0::/\n")
    granted = env.granted_cpus
    monkeypatch.setattr(decoder, "granted_cpus", lambda: granted(tmp_path, tmp_path / "self"))
    assert decoder.worker_count(None) == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert decoder.worker_count(None) == 3
    assert decoder.worker_count(64) == 6
