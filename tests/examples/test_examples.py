"""The scripts of examples/, each run as a user would, on a tiny data set."""

from __future__ import annotations

import os
import re
import runpy
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastreg import runs
from fastreg.evaluation import Scorecard
from tests.support import ROOT, environment, fastreg, peer, train_words, write_tiny_imagenet

EXAMPLES = ROOT / "examples"
STEPS = 2 * (18 // 8)  # two epochs of 18 images in batches of 8


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_imagenet(tmp_path_factory.mktemp("tiny"), classes=3, train=6, val=2)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a script in this process, in an empty folder; gives its global names and its output."""

    def script(name: str, *words: object) -> tuple[dict, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        torch.manual_seed(0)
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__"), capsys.readouterr().out

    return script


def assert_trained(optimizer: torch.optim.Optimizer, steps: int, model: torch.nn.Module) -> None:
    """Every parameter has been updated with a finite gradient, and batch norm has seen each step."""
    moments = [optimizer.state[parameter]["momentum_buffer"] for parameter in model.parameters()]
    assert all(moment.isfinite().all() for moment in moments)
    assert sum(moment.abs().sum() for moment in moments) > 0
    assert int(model.bn1.num_batches_tracked) == steps


def test_every_example_has_a_test():
    tested = set(re.findall(r'"(\w+\.(?:py|sbatch))"', Path(__file__).read_text()))
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sbatch")} == tested


def test_own_loop(run, data):
    names, out = run("own_loop.py", data, "--epochs", 2, "--batch-size", 8, "--size", 32, "--method", "mixup")
    assert_trained(names["optimizer"], STEPS, names["model"])
    assert int(names["augment"].step) == STEPS
    assert re.fullmatch(r"(epoch \d: loss \d+\.\d+, validation error \d+\.\d %\n){2}", out)


def test_timm_loop(run, data):
    peer("timm")
    names, out = run("timm_loop.py", data, "--epochs", 2, "--batch-size", 8, "--size", 32, "--workers", 0)
    assert_trained(names["optimizer"], STEPS, names["model"])
    assert int(names["mixup_fn"].step) == STEPS
    assert len(re.findall(r"epoch \d: loss \d+\.\d+", out)) == 2


def test_lightning_module(run, data):
    peer("lightning")
    names, out = run("lightning_module.py", data, "--epochs", 2, "--batch-size", 8, "--size", 32)
    assert_trained(names["trainer"].optimizers[0], STEPS, names["module"].model)
    assert names["trainer"].global_step == int(names["module"].augment.step) == STEPS
    assert re.search(r"validation error \d+\.\d %", out)


def test_evaluate_checkpoint(run, data, tmp_path):
    build = _function("evaluate_checkpoint.py", "build_model")
    torch.manual_seed(1)
    torch.save(build(3).state_dict(), tmp_path / "weights.pt")
    _, out = run(
        "evaluate_checkpoint.py", tmp_path / "weights.pt", data / "val", "--size", 32, "--out", tmp_path / "card"
    )
    printed = {name: float(value) for name, value in re.findall(r"(\w+): ([\d.]+)", out)}
    card = Scorecard.load(tmp_path / "card" / "scorecard.json")
    assert {"clean_error", "fgsm_error", "occlusion_error"} <= printed.keys()
    assert printed == {name: pytest.approx(value, abs=0.005) for name, value in card.summary().items()}
    assert card.data["n"] == 6


def _function(script: str, name: str):
    """One function of a script, without running the script."""
    text = (EXAMPLES / script).read_text()
    code = re.search(rf"^def {name}\(.*?(?=\n\n\n)", text, re.MULTILINE | re.DOTALL)
    assert code
    names: dict = {"nn": torch.nn}
    exec(code[0], names)
    return names[name]


FAKES = {
    # the first of the job's nodes
    "scontrol": 'test "$*" = "show hostnames here,there" && printf "127.0.0.1\\nthere\\n"',
    # the same command on each of two nodes
    "srun": '"$@" & first=$!; "$@"; second=$?; wait $first && exit $second',
    "torchrun": f'exec "{sys.executable}" -m torch.distributed.run "$@"',
}


@pytest.mark.slow
def test_slurm_script(data, tmp_path):
    """The script between a scheduler's commands: two nodes of this machine, one process each."""
    script = EXAMPLES / "train.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, line in FAKES.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (folder / name).chmod(stat.S_IRWXU)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slurm = {"SLURM_JOB_NODELIST": "here,there", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_ID": "7"}
    words = train_words(data, tmp_path / "runs", "slurm", "-b", "4", "--epochs", "1")[1:]
    done = subprocess.run(
        ["bash", str(script), *words],
        env=environment(PATH=f"{folder}:{os.environ['PATH']}", RDZV_PORT=str(port), **slurm),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    steps = [row for row in runs.read_rows(tmp_path / "runs" / "slurm" / "log.jsonl") if row["kind"] == "step"]
    assert len(steps) == 18 // 8  # of 4 images on each of 2 nodes
    assert done.stdout.count("epoch 1: loss") == 1  # only rank 0 prints


@pytest.mark.slow
def test_slurm_array(data, tmp_path):
    """Three tasks of an array at once, as processes of this machine, write what one command writes."""
    script, words = EXAMPLES / "corrupt.sbatch", ("--corruptions", "brightness,contrast", "--severity", "1,5")
    subprocess.run(["bash", "-n", str(script)], check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python").chmod(stat.S_IRWXU)
    given = environment(PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", SLURM_ARRAY_TASK_COUNT="3")
    size = ("--size", "64", "--constants", "tiny64")
    tasks = [
        subprocess.Popen(
            ["bash", str(script), str(data), str(tmp_path / "set"), *words, *size],
            env=given | {"SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in (1, 2, 3)
    ]
    outputs = [task.communicate(timeout=240)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0, 0], outputs
    assert any("all shards are finished" in output for output in outputs)
    done = fastreg("corrupt", data, tmp_path / "whole", *words, *size)
    assert done.returncode == 0, done.stderr

    def content(root: Path) -> dict[str, bytes]:
        files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in files.items()}

    assert content(tmp_path / "set") == content(tmp_path / "whole")
    assert len(list((tmp_path / "set").rglob("*.JPEG"))) == 4 * 6
