"""A run does not depend on how processes and accumulation share a batch: one process, two processes, two nodes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from torch import nn

from fastreg import files, runs
from fastreg.cli import main
from fastreg.evaluation.load_model import load_run
from fastreg.pipelines import make_loader, open_dataset
from fastreg.training import launch
from fastreg.training.batchnorm import BatchNormStatistics
from fastreg.training.validate import validate
from tests.fastreg.training import tiny_runs as tiny
from tests.fastreg.training.processes import outputs, start_torchrun
from tests.support import fastreg, train_words


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in runs.read_rows(folder / "log.jsonl") if row["kind"] == "step"]


def assert_same_run(one: Path, two: Path) -> None:
    """Losses and weights bit for bit (halves are exact, and a sum of two has no order); statistics to a rounding."""
    assert losses(one) == losses(two)
    ours, theirs = (runs.load_checkpoint(folder / "last.pt") for folder in (one, two))
    assert ours["step"] == theirs["step"] == len(losses(one))
    for key in ("model", "ema"):
        for name, value in (ours[key] or {}).items():
            if "running" in name:
                torch.testing.assert_close(value, theirs[key][name], rtol=2e-6, atol=1e-6, msg=name)
            else:
                assert torch.equal(value, theirs[key][name]), name


@pytest.fixture(scope="module")
def every_method(tmp_path_factory) -> Path:
    """All methods trained in one process that accumulates two micro-batches, and in two processes at one each."""
    root = tmp_path_factory.mktemp("methods")
    data = tiny.write_data(root / "data")
    two = start_torchrun(
        "--standalone", "--nproc-per-node=2", "-m", "tests.fastreg.training.tiny_runs", data, root / "two"
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch, data)
        tiny.train_all(data, root / "one", grad_accum_steps=2)
    torch.set_num_threads(threads)
    outputs(two)
    return root


@pytest.mark.parametrize("reg", tiny.REGS)
def test_two_processes_equal_one_that_accumulates(reg, every_method):
    assert len(losses(every_method / "one" / reg / "run")) > 1
    assert_same_run(every_method / "one" / reg / "run", every_method / "two" / reg / "run")


@pytest.fixture(scope="module")
def two(image_folders, tmp_path_factory) -> Path:
    """An epoch of ResNet-18 by the command line in two processes."""
    output = tmp_path_factory.mktemp("two")
    words = train_words(image_folders, output, "two", "--epochs", "1")
    outputs(start_torchrun("--standalone", "--nproc-per-node=2", "-m", "fastreg", *words))
    return output / "two"


def test_the_logged_validation_of_two_processes_is_that_of_the_saved_model(two, image_folders):
    (row,) = (row for row in runs.read_rows(two / "log.jsonl") if row["kind"] == "epoch")
    model, config = load_run(two)
    source = open_dataset("imagenet", "val", image_folders)
    loader = make_loader(source, train=False, batch_size=4, size=config["eval_size"])
    alone = validate(model, loader, source.mean, source.std, torch.float32)
    assert row["val_top1_error"] == alone["val_top1_error"]
    assert row["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-5)


@pytest.mark.slow
def test_two_nodes_equal_two_processes_and_only_rank_0_prints(two, image_folders, tmp_path):
    """The README's line for two nodes, started twice on this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    line = f"--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id run --rdzv-endpoint {endpoint} -m fastreg"
    words = train_words(image_folders, tmp_path, "nodes", "--epochs", "1")
    spoken = outputs(*(start_torchrun(*line.split(), *words) for _ in range(2)))
    assert sorted("epoch 1: loss" in out for out in spoken) == [False, True]
    assert sorted(out.count("recipe") for out in spoken) == [0, 1]
    assert_same_run(tmp_path / "nodes", two)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model resnet51", "unknown model 'resnet51'"),
        ("--reg mixpu", "unknown method 'mixpu'"),
        ("--reg ood_gan", "fastreg train gan"),
        ("-b 1000", "fewer than one global batch of 2000"),
        ("--data-dir nowhere", "no imagenet data at nowhere"),
        ("--resume nowhere", "--resume nowhere: no last.pt there"),
        ("--seed -1", "--seed is -1: give at least 0"),
    ],
)
def test_errors_of_all_processes_are_raised_before_they_start(
    words, message, image_folders, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "launch", lambda *words: pytest.fail("processes were started"))
    line = ["fastreg", *train_words(image_folders, tmp_path, "run", "--gpus", "2", *words.split())]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_with_one_sentence_and_its_code(image_folders, tmp_path):
    """Only rank 0 locks the folder."""
    with files.lock(tmp_path / "run"):
        done = fastreg(*train_words(image_folders, tmp_path, "run", "--gpus", "2"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("fastreg:")]
    assert len(lines) == 1
    assert "is in use by another run" in lines[0]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_step_moves_the_statistics_once_by_the_mean_of_its_micro_batches(momentum):
    """Against the definition, written out; ``momentum=None`` is torch's cumulative average."""
    norm = nn.BatchNorm1d(3, momentum=momentum)
    statistics = BatchNormStatistics(norm, micro_batches=3, world_size=1)
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        batches = 5 * torch.randn(3, 8, 3, generator=generator)
        for micro, batch in enumerate(batches):
            statistics.start(micro)
            norm(batch)
            statistics.end(micro)
        weight = momentum or 1 / (step + 1)
        mean = (1 - weight) * mean + weight * batches.double().mean(1).mean(0)
        var = (1 - weight) * var + weight * batches.double().var(1).mean(0)
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-5, atol=1e-6)
        assert norm.num_batches_tracked == step + 1
