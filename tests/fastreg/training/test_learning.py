"""Every method learns: twenty steps of a small network on the sample's images, at 8 pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastreg import methods, runs
from fastreg.pipelines import write_sample
from fastreg.training import train
from tests.fastreg.training import tiny_runs as tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The methods' own data, and CIFAR-100's sample: 12 classes, 1440 and 240 images."""
    pytest.importorskip("skimage", reason="skimage, whose images the sample is made of, is not installed")
    root = tiny.write_data(tmp_path_factory.mktemp("data"))
    write_sample("cifar100", root / "sample")
    return root


@pytest.mark.parametrize("reg", methods.METHODS)
def test_a_short_run_on_the_sample_learns(reg, data, tmp_path, monkeypatch):
    tiny.shrink(monkeypatch, data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    short = {"batch_size": 72, "lr": 0.2, "sched": "linear", "size": 8, "eval_size": 8, "recovery_interval": 1000}
    short |= {"model_ema_decay": None, "ls": 0.0, "color_jitter": 0.0, "lighting": 0.0, "log_interval": 20}
    folder = train(tiny.settings(reg, tmp_path, data, data_dir=str(data / "sample"), **short))
    torch.set_num_threads(threads)
    (row,) = (row for row in runs.read_rows(folder / "log.jsonl") if row["kind"] == "epoch")
    assert row["val_top1_error"] < 75  # chance is 91.7; the runs end between 33 and 55
