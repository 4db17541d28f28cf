"""Training survives kills, resumes and other process counts, and learns."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fastreg import files, runs
from fastreg.errors import InputError
from fastreg.evaluation.load_model import load_run
from fastreg.training import Config, make_config
from fastreg.training.schedule import learning_rate, train_size
from tests.support import command, environment, fastreg, train_words, write_tiny_imagenet


@pytest.fixture(scope="module")
def whole(image_folders, tmp_path_factory) -> Path:
    """The uninterrupted run that others are compared with."""
    output = tmp_path_factory.mktemp("whole")
    done = fastreg(*train_words(image_folders, output, "whole"))
    assert done.returncode == 0, done.stderr
    return output / "whole"


def steps_of(folder: Path) -> list[dict]:
    return [row for row in runs.read_rows(folder / "log.jsonl") if row["kind"] == "step"]


def test_run_folder_is_complete_and_learns(whole):
    names = {path.name for path in whole.iterdir()}
    assert {"config.json", "environment.json", "log.csv", "log.jsonl", "last.pt", "best.pt", "curves.png"} <= names
    assert [row["step"] for row in steps_of(whole)] == list(range(1, 17))
    with open(whole / "log.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 17))
    with open(whole / "epochs.csv", newline="") as file:
        epochs = [(int(row["epoch"]), row["ema_val_loss"]) for row in csv.DictReader(file) if float(row["val_loss"])]
        assert epochs == [(0, ""), (1, "")]
    config = json.loads((whole / "config.json").read_text())
    assert (config["reg"], config["ls"], config["num_classes"], config["sample"]) == ("mixup", 0.1, 4, False)
    first, last = (row for row in runs.read_rows(whole / "log.jsonl") if row["kind"] == "epoch")
    assert last["train_loss"] < first["train_loss"]


@pytest.mark.slow
def test_four_plain_epochs_learn(image_folders, tmp_path):
    done = fastreg(*train_words(image_folders, tmp_path, "plain", "--reg", "none", "--epochs", "4"))
    assert done.returncode == 0, done.stderr
    errors = [
        row["val_top1_error"] for row in runs.read_rows(tmp_path / "plain" / "log.jsonl") if row["kind"] == "epoch"
    ]
    assert min(errors) < 50  # of 64 images in four classes: 75 is the chance level


@pytest.mark.slow
def test_killed_at_random_steps_and_in_a_checkpoint_write_ends_bit_identical(image_folders, whole, tmp_path):
    words = train_words(
        image_folders, tmp_path, "killed", "--recovery-interval", "2", "--log-interval", "3", "--resume", "auto"
    )
    folder = tmp_path / "killed"
    rng = random.Random(3)
    kills = {"step": 0, "write": 0}
    for attempt in range(3):
        child = subprocess.Popen(
            command(*words), env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        in_a_write = attempt == 1
        target = (len(steps_of(folder)) if folder.exists() else 0) + rng.randint(2, 5)
        while child.poll() is None:
            if in_a_write and list(folder.glob(".last.pt.*.tmp")):
                kills["write"] += 1
                break
            if not in_a_write and folder.exists() and len(steps_of(folder)) >= target:
                kills["step"] += 1
                break
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert kills == {"step": 2, "write": 1}
    done = fastreg(*words)
    assert done.returncode == 0, done.stderr
    ours, theirs = (torch.load(f / "last.pt", weights_only=True) for f in (folder, whole))
    assert all(torch.equal(a, b) for a, b in zip(ours["model"].values(), theirs["model"].values(), strict=True))
    assert [(r["step"], r["loss"], r["lr"]) for r in steps_of(folder)] == [
        (r["step"], r["loss"], r["lr"]) for r in steps_of(whole)
    ]
    rows = runs.read_rows(folder / "log.jsonl")
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [0, 1]
    assert not list(folder.glob(".*.tmp"))


def test_sigterm_saves_and_leaves_a_resumable_run(image_folders, tmp_path):
    words = train_words(image_folders, tmp_path, "stopped", "--epochs", "200", "--log-interval", "1")
    child = subprocess.Popen(command(*words), env=environment(), stderr=subprocess.PIPE, text=True)
    while not steps_of(tmp_path / "stopped"):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    resume = f"continue with: fastreg train imagenet --resume {tmp_path / 'stopped'}"
    assert errors.rstrip().endswith(resume)
    assert "Traceback" not in errors
    saved = runs.load_checkpoint(tmp_path / "stopped" / "last.pt")["step"]
    assert saved == steps_of(tmp_path / "stopped")[-1]["step"]


def test_the_newest_run_is_a_classifier(whole, tmp_path):
    generator = tmp_path / "gan"
    runs.save_checkpoint(generator / "last.pt", {"config": {"latent": 128}, "generator": {}})
    with pytest.raises(InputError, match="no run with a checkpoint"):
        runs.newest(tmp_path)
    with pytest.raises(InputError, match="no classifier"):
        load_run(generator / "last.pt")


def test_a_method_sets_its_optimizer_unless_one_is_given():
    config, lines = make_config("cifar100", gpu=True, reg="adversarial")
    assert (config.opt, config.lr) == ("adam", 1e-3)
    assert any("adam" in line for line in lines)
    config, _ = make_config("cifar100", gpu=True, reg="adversarial", opt="sgd")
    assert (config.opt, config.lr) == ("sgd", 0.25)
    for reg in ("adversarial", "alp"):
        config, lines = make_config("imagenet", gpu=True, reg=reg, recipe="fast/imagenet/rn50-16")
        assert (config.opt, config.lr) == ("adam", 1e-3)
        assert any("trained with adam" in line for line in lines)
    config, lines = make_config("cifar100", gpu=True, recipe="paper/cifar100/alp")
    assert (config.opt, config.lr) == ("adam", 1e-3)
    assert len(lines) == 1  # the row names it


def test_another_size_scales_the_recipes_growth():
    config, lines = make_config("imagenet", gpu=True, recipe="fast/imagenet/rn50-16", size=96)
    assert (config.min_size, config.size, config.eval_size) == (80, 96, 96)
    assert any("grow from 80 to 96 px" in line for line in lines)
    assert [train_size(config, epoch) for epoch in (0, 11, 13, 15)] == [80, 80, 96, 96]
    config, _ = make_config("imagenet", gpu=True, recipe="fast/imagenet/rn50-16", size=96, min_size=64)
    assert config.min_size == 64
    for size, least in ((8, 8), (40, 32), (200, 168)):
        config, _ = make_config("imagenet", gpu=True, recipe="fast/imagenet/rn50-88", size=size)
        sizes = [train_size(config, epoch) for epoch in range(88)]
        assert (sizes[0], sizes[-1]) == (least, size)
        assert sizes == sorted(sizes)
    with pytest.raises(InputError, match="`min_size` 160 is larger than `size` 128"):
        Config("imagenet", size=128, min_size=160)


RAMPS = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}


@pytest.mark.parametrize("epochs", RAMPS)
def test_ffcvs_schedules_grow_in_its_epochs(epochs):
    first, last = RAMPS[epochs]
    config, _ = make_config("imagenet", gpu=True, recipe=f"fast/imagenet/rn50-{epochs}")
    for epoch in range(epochs):
        side = np.interp(epoch, [first, last], [160, 192])
        assert train_size(config, epoch) == 32 * int(np.round(side / 32)), epoch


@pytest.mark.slow
def test_resume_refuses_other_settings_and_other_data(whole, image_folders, tmp_path):
    def again(*more: str):
        return fastreg(*train_words(image_folders, whole.parent, "whole", "--resume", "auto", *more))

    assert "is complete" in again().stdout
    changed = again("--lr", "0.5")
    assert changed.returncode == 2
    assert "lr 0.005 then, 0.5 now" in changed.stderr
    exists = fastreg(*train_words(image_folders, whole.parent, "whole"))
    assert exists.returncode == 2
    assert "--resume auto" in exists.stderr
    other = write_tiny_imagenet(tmp_path / "other", train=15)
    moved = fastreg(*train_words(other, whole.parent, "whole", "--resume", "auto"))
    assert moved.returncode == 2
    assert "fingerprint" in moved.stderr


def test_second_writer_is_refused(tmp_path):
    with files.lock(tmp_path / "run"), pytest.raises(InputError, match="in use"), files.lock(tmp_path / "run"):
        pass


def test_recipe_auto_and_overrides():
    config, lines = make_config("imagenet", gpu=False, reg="mixup", ls=0.1)
    assert (config.model, config.size, config.batch_size, config.recipe) == ("resnet18", 64, 32, "auto")
    assert lines[0].startswith("recipe short/imagenet")
    config, lines = make_config("imagenet", gpu=True, world=8)
    assert (config.model, config.epochs, config.batch_size, config.lr) == ("resnet50", 300, 32, 0.1)
    config, lines = make_config("imagenet", gpu=True, world=8, batch_size=128)
    assert config.lr == pytest.approx(0.4)
    assert any("scaled" in line for line in lines)
    with pytest.raises(InputError, match="did you mean 'paper/imagenet/mixup'"):
        make_config("imagenet", gpu=True, recipe="paper/imagenet/mixupp")
    with pytest.raises(InputError, match="for cifar100"):
        make_config("imagenet", gpu=True, recipe="paper/cifar100/alp")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("lr", -0.1), ("ls", 1.5), ("epochs", 0), ("momentum", 2), ("lr", float("nan")), ("momentum", 1)],
        *[("seed", -1), ("seed", 2**64), ("model_ema_decay", 1), ("milestones", (-0.5, 1)), ("size_ramp", (-1, 1))],
        *[("size_ramp", (0.5, 0.4)), ("stem", "round")],
    ],
)
def test_values_out_of_range_name_the_setting(field, value):
    with pytest.raises(InputError, match=f"`{field}`"):
        make_config("imagenet", gpu=False, **{field: value})


@pytest.mark.parametrize("name", ["seed", "scope", "size", "dataset"])
def test_settings_are_no_reg_args(name):
    with pytest.raises(InputError, match=f"`reg_args` contains {name}: "):
        make_config("imagenet", gpu=False, reg="mixup", reg_args={name: 1})


def test_no_momentum_is_no_nesterov():
    assert not make_config("imagenet", gpu=False, momentum=0.0)[0].nesterov
    with pytest.raises(InputError, match="`nesterov` needs momentum, and `momentum` is 0"):
        make_config("imagenet", gpu=False, momentum=0.0, nesterov=True)


def test_schedules():
    config = Config("imagenet", lr=1.0, sched="step", epochs=300)
    assert [learning_rate(config, s, 300) for s in (0, 74, 75, 225)] == pytest.approx([1, 1, 0.1, 1e-3])
    config = Config("imagenet", lr=1.0, sched="cosine", warmup=0.1)
    rates = [learning_rate(config, s, 100) for s in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    config = Config("imagenet", epochs=88, min_size=160, size=192, size_ramp=(65 / 88, 76 / 88))
    assert [train_size(config, e) for e in (0, 65, 72, 76, 87)] == [160, 160, 192, 192, 192]
