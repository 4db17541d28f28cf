"""A training run and an evaluation on the Triton route agree with those on the reference route."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastreg import runs
from fastreg.models import create_model
from tests.support import fastreg, train_words, write_tiny_imagenet

ROUTES = {"reference": {"TRITON_INTERPRET": "0"}, "triton": {"TRITON_INTERPRET": "1"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_imagenet(tmp_path_factory.mktemp("tiny"), classes=2, train=4, val=3)


@pytest.fixture(scope="module")
def output(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("routes")
    for name, env in ROUTES.items():
        # a small rate, since batch norm over four values would magnify a rounding difference of the first update
        words = train_words(data, folder, name, "-b", "4", "--epochs", "1", "--reg", "cutmix+gaussian_noise")
        words += ["--lr", "0.0002"]
        done = fastreg(*words, **env)
        assert done.returncode == 0, done.stderr
    return folder


def test_train_steps_agree(output):
    reference, triton = (
        [row for row in runs.read_rows(output / name / "log.jsonl") if row["kind"] == "step"] for name in ROUTES
    )
    assert len(reference) == len(triton) == 2
    # the second loss comes after an update; batch norm over four values magnifies rounding differences
    assert reference[0]["loss"] == pytest.approx(triton[0]["loss"], rel=1e-4)
    assert reference[1]["loss"] == pytest.approx(triton[1]["loss"], rel=2e-3)


def test_updates_agree(output):
    """Two optimizer steps change the parameters alike. A wrong gradient makes the relative difference about one."""
    one, two = (runs.load_checkpoint(output / name / "last.pt") for name in ROUTES)
    torch.manual_seed(one["config"]["seed"])
    start = dict(create_model(one["config"]["model"], one["config"]["num_classes"]).named_parameters())
    change = torch.cat([(one["model"][name] - value.detach()).flatten() for name, value in start.items()])
    triton_change = torch.cat([(two["model"][name] - value.detach()).flatten() for name, value in start.items()])
    assert change.norm() > 0
    assert (change - triton_change).norm() / change.norm() < 0.02


@pytest.mark.slow
def test_evaluations_agree(output, data, tmp_path):
    cards = {}
    for name, env in ROUTES.items():
        run = output / "reference"
        done = fastreg(
            *f"eval {run} --suite clean,fgsm,occlusion,calibration,imagenet-c --data-dir {data}".split(),
            *f"--constants tiny64 --corruptions gaussian_noise,contrast --out {tmp_path / name}".split(),
            **env,
        )
        assert done.returncode == 0, done.stderr
        cards[name] = json.loads((tmp_path / name / "scorecard.json").read_text())
    reference, triton = _numbers(cards["reference"]["suites"]), _numbers(cards["triton"]["suites"])
    assert reference.keys() == triton.keys()
    assert len(reference) > 10
    for key, value in reference.items():
        assert triton[key] == pytest.approx(value, rel=1e-3, abs=1e-3), key


def _numbers(tree, path: str = "") -> dict[str, float]:
    """The numbers of a scorecard's suites by path, without times."""
    if isinstance(tree, dict):
        return {k: v for key, below in tree.items() for k, v in _numbers(below, f"{path}/{key}").items()}
    if isinstance(tree, list):
        return {k: v for i, below in enumerate(tree) for k, v in _numbers(below, f"{path}/{i}").items()}
    timed = any(word in path for word in ("second", "rate", "date"))
    return {path: float(tree)} if isinstance(tree, int | float) and not timed else {}
