"""Every row of the paper takes two real optimizer steps: its own model at full depth, few pixels, two images."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from fastreg.distributed import World
from fastreg.errors import InputError, RunError
from fastreg.kernels import Batch
from fastreg.recipes import ALL, PAPER
from fastreg.report import paper_commands as commands
from fastreg.training import Config, make_config
from fastreg.training.recipe_table import recipe_config, recipe_settings, recipe_table
from fastreg.training.train_step import TrainStep
from tests.support import ROOT, fastreg

PIXELS = {"cifar100": 8, "imagenet": 32}  # the fewest that both models' last stage can take a batch norm over
PARAMETERS = {"cifar100": 26_844_952, "imagenet": 25_557_032}
STATISTICS = ((0.5,) * 3, (0.25,) * 3)


class Generator(nn.Module):
    """Stand-in for a trained generator: latents to pixels in [-1, 1]."""

    latent = 12

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.view(-1, 3, 2, 2).tanh()


OOD = {"ood_svhn": torch.arange(3 * 8 * 8 * 3).view(3, 8, 8, 3).to(torch.uint8), "ood_gan": Generator()}


def small(name: str) -> Config:
    """The unchanged recipe, on a small batch of small images."""
    config = recipe_config(name)
    config.size = config.eval_size = PIXELS[config.dataset]
    config.batch_size, config.device = 2, "cpu"
    if config.reg in OOD:
        config.reg_args = {"ood": OOD[config.reg]}
    return config


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_there_are_34():
    assert len(PAPER) == 34
    assert sum(name.startswith("paper/cifar100/") for name in PAPER) == 22


# one of each kind of method; the others are slow
QUICK = tuple(f"paper/{name}" for name in ("imagenet/baseline", "cifar100/mixup", "cifar100/alp", "cifar100/ood_svhn"))
ROWS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PAPER]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_two_steps_at_full_depth(name, one_thread):
    config = small(name)
    classes = 100 if config.dataset == "cifar100" else 1000
    engine = TrainStep(config, classes, *STATISTICS, World(0, 1, torch.device("cpu")))
    parameters = list(engine.model.parameters())
    assert sum(p.numel() for p in parameters) == PARAMETERS[config.dataset]
    generator = torch.Generator().manual_seed(3)
    for step in range(2):
        shape = (2, config.size, config.size, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, classes, (2,), generator=generator)
        before = [p.detach().clone() for p in parameters]
        loss = engine.forward_backward(Batch(images, labels, torch.tensor([11, 5]) + step, None), step, 0, config.size)
        assert torch.isfinite(loss)
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)
        assert engine.update(step, 2 * len(config.milestones)) == config.lr
        moved = sum(not torch.equal(p, old) for p, old in zip(parameters, before))
        assert moved == len(parameters)
        assert all(torch.isfinite(p).all() for p in parameters)


def test_table_of_recipes_is_up_to_date():
    assert (Path(ROOT) / "fastreg" / "RECIPES.md").read_text() == recipe_table(), (
        "write it anew: fastreg recipes --markdown > fastreg/RECIPES.md"
    )
    assert recipe_table().count("| `paper/") == 34


@pytest.mark.slow
def test_command_prints_the_table():
    done = fastreg("recipes", "--markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout == recipe_table()


@pytest.mark.parametrize("name", ALL)
def test_listed_settings_are_those_of_a_run(name):
    """Every setting that is not a machine's or a run's own, those that the recipe leaves at their defaults too."""
    dataset = {"cifar": "cifar10"}.get(name.split("/")[1], name.split("/")[1])
    config, _ = make_config(dataset, gpu=True, recipe=name)
    listed = recipe_settings(name)
    assert listed == {key: getattr(config, key) for key in listed}
    assert {"model", "stem", "reg", "ls", "scope", "opt", "lr", "weight_decay", "norm_weight_decay"} <= set(listed)
    assert ("milestones" in listed, "size_ramp" in listed) == (config.sched == "step", config.min_size is not None)


@pytest.mark.slow
def test_command_lists_the_settings():
    done = fastreg("recipes", "rn50-16")
    assert done.stdout.startswith("fast/imagenet/rn50-16\n  model resnet50  stem imagenet  blurpool True  reg none")
    for words in ("warmup 0.125", "size_ramp 0.6875,0.8125", "norm_weight_decay False", "nesterov False"):
        assert words in done.stdout
    listed = json.loads(fastreg("recipes", "paper/imagenet", "--json").stdout)
    assert listed["paper/imagenet/cutmix+ls"]["milestones"] == [0.25, 0.5, 0.75]
    assert len(listed) == 12


def trained(table: str) -> list[str]:
    """The recipes that a table's commands train."""
    return [words[words.index("--recipe") + 1] for words in commands.commands(table) if "--recipe" in words]


def test_the_tables_commands_train_and_evaluate_all_rows():
    counts = {table: len(trained(table)) for table in ("table1", "table2", "table3", "table4")}
    assert counts == {"table1": 22, "table2": 4, "table3": 8, "table4": 12}
    assert sorted(trained("table1") + trained("table4")) == sorted(PAPER)
    words = commands.commands("table4", "out", ["--workers", "3"])
    assert [w[0] for w in words] == ["train", "eval"] * 12
    line = "train imagenet --recipe paper/imagenet/ls --output out --name imagenet-ls --resume auto --workers 3"
    assert shlex.join(words[2]) == line
    assert words[3] == ["eval", "out/imagenet-ls", "--suite", "paper"]
    with pytest.raises(InputError, match="figure1 is drawn from the runs"):
        commands.commands("figure1")


@pytest.mark.slow
def test_the_row_of_the_gan_trains_its_generator_first_and_finds_it():
    *_, gan, row, _ = commands.commands("table3", "out", ["--data-dir", "where", "--epochs", "2"])
    assert shlex.join(gan) == "train gan --output out --resume auto --data-dir where"
    assert row[row.index("--reg-args") + 1] == '{"ood": "out/gan"}'
    done = fastreg("paper", "table3", "--commands", "--runs", "out", "--train-flags", "--data-dir where --epochs 2")
    assert [shlex.split(line) for line in done.stdout.splitlines()][-2] == ["fastreg", *row]


def test_a_table_is_run_row_by_row_until_one_fails_and_then_from_there(monkeypatch, caplog):
    """Commands that end well are whole: a second call finds them complete, since each resumes."""
    ran, failing = [], {5}

    def child(words):
        ran.append(words[words.index("fastreg") + 1 :])
        return subprocess.CompletedProcess(words, int(len(ran) in failing))

    monkeypatch.setattr(commands.subprocess, "run", child)
    caplog.set_level("INFO", logger="fastreg")
    with pytest.raises(
        RunError, match=r"`fastreg train .*paper/cifar100/alp.*` failed: fix the cause and run this command"
    ):
        commands.run("table2")
    assert ran == commands.commands("table2")[:5]
    ran.clear()
    failing.clear()
    commands.run("table2")
    assert ran == commands.commands("table2")
    assert sum(message.startswith("$ fastreg ") for message in caplog.messages) == 5 + 8
