"""A method and a model that are added to their tables reach the command line, a finished run and its evaluation."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
import torch
from torch import nn

from fastreg import methods, models, runs
from fastreg.cli import main
from fastreg.evaluation.load_model import load_run
from fastreg.kernels import philox
from fastreg.methods.__main__ import method_table

MODULE = '''"""Stripes: fills a band of random height at the top of each image with the mean color.

    height ~ U{1 .. most}

Source: a test.
Defaults: most 4.
Cost: no extra read.
Example: ``fastreg train cifar100 --reg stripes``.
"""

import numpy as np

from fastreg.kernels import philox
from fastreg.methods.base import Component, Drawn, number


def stripes(context, *, most=4):
    most = int(number("most", most, 1))

    def draw(keys):
        words = philox.words(context.seed, 0, keys.samples, keys.epoch, "stripes_height")[:, 0]
        box = np.zeros((len(keys.samples), 4), np.int32)
        box[:, 2], box[:, 3] = 1 + philox.integers(words, most), keys.size[1]
        return Drawn({"box": box, "box_fill": np.full(len(box), 2, np.int8)})

    return Component("stripes", draw, writes=("box", "box_fill"), mean_fill=True)
'''


@pytest.fixture
def stripes(tmp_path, monkeypatch):
    """The steps of CONTRIBUTING.md: a module of fastreg.methods, a row of METHODS, a Philox operation."""
    path = tmp_path / "stripes.py"
    path.write_text(MODULE)
    name = "fastreg.methods.stripes"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(methods.METHODS, "stripes", module.stripes)
    monkeypatch.setitem(philox.OPERATIONS, "stripes_height", max(philox.OPERATIONS.values()) + 1)
    return module


@pytest.fixture
def command(quick, capsys):
    """Run a command line in this process and return its output."""

    def run(line: str) -> str:
        quick.setattr("sys.argv", line.split())
        with pytest.raises(SystemExit) as end:
            main()
        output = capsys.readouterr()
        assert not end.value.code, output.err
        return output.out

    return run


SETTINGS = "--stem cifar --epochs 2 -b 4 --img-size 16 --eval-size 32 --device cpu --workers 1 --name run --lr 0.05"


def test_an_added_method_trains_to_the_end(stripes, command, tmp_path):
    most = json.dumps({"most": 3}, separators=(",", ":"))
    command(f"fastreg train cifar100 --model tiny --reg mixup+stripes --reg-args {most} --output {tmp_path} {SETTINGS}")
    folder = tmp_path / "run"
    epochs = [row for row in runs.read_rows(folder / "log.jsonl") if row["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [0, 1]
    assert json.loads((folder / "config.json").read_text())["reg"] == "mixup+stripes"
    assert (folder / "best.pt").is_file()

    # the draws of that run: the module's own, beside Mixup's
    indices = torch.arange(16)
    own = {"dataset": "cifar100", "size": 16}
    plan, targets = methods.create("mixup+stripes", most=3, **own).draw(indices, indices, 0)
    assert sorted(set(plan.box[:, 2].tolist())) == [1, 2, 3]
    assert torch.equal(targets.lam, methods.create("mixup", **own).draw(indices, indices, 0)[1].lam)


def test_an_added_method_is_in_the_table_of_methods(stripes):
    assert (
        "| `stripes` | Stripes: fills a band of random height at the top of each image with the mean color. | most 4. "
        "| a test. |"
    ) in method_table().splitlines()


class Pooled(nn.Sequential):
    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.append(nn.Linear(4 * width, num_classes))


def test_an_added_model_trains_and_gets_a_card(command, quick, tmp_path):
    quick.setitem(models.MODELS, "pooled", Pooled)
    command(f"fastreg train cifar100 --model pooled --reg cutmix --output {tmp_path} {SETTINGS}")
    folder = tmp_path / "run"
    model, config = load_run(folder)
    assert isinstance(model, Pooled)
    assert config["model"] == "pooled"
    command(f"fastreg eval {folder} --suite clean,fgsm,occlusion --device cpu")
    card = json.loads((folder / "scorecard.json").read_text())
    assert set(card["suites"]) == {"clean", "fgsm", "occlusion"}
    assert {"fgsm_error", "occlusion_error", "ece"} <= set(card["summary"])
    epochs = [row for row in runs.read_rows(folder / "log.jsonl") if row["kind"] == "epoch"]
    assert card["summary"]["clean_error"] == min(row["val_top1_error"] for row in epochs)
