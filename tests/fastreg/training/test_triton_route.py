"""The Triton route is executed, not only compiled: a training run and an evaluation through the interpreter agree with
the plain route."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastreg import runs
from fastreg.models import create_model
from tests.support import fastreg, train_words, write_tiny_imagenet

INTERPRET = {"TRITON_INTERPRET": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_imagenet(tmp_path_factory.mktemp("tiny"), classes=2, train=4, val=3)


@pytest.fixture(scope="module")
def output(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("routes")
    for name, env in (("plain", {}), ("triton", INTERPRET)):
        # a small rate, since batch norm over four values would magnify a rounding difference of the first update
        words = train_words(data, folder, name, "-b", "4", "--epochs", "1", "--reg", "cutmix+gaussian_noise")
        words += ["--lr", "0.0002"]
        done = fastreg(*words, **env)
        assert done.returncode == 0, done.stderr
    return folder


def test_train_steps_agree(output):
    plain, triton = (
        [row for row in runs.read_rows(output / name / "log.jsonl") if row["kind"] == "step"]
        for name in ("plain", "triton")
    )
    assert len(plain) == len(triton) == 2
    # the second loss comes after an update; batch norm over four values magnifies rounding differences
    assert plain[0]["loss"] == pytest.approx(triton[0]["loss"], rel=1e-4)
    assert plain[1]["loss"] == pytest.approx(triton[1]["loss"], rel=2e-3)


def test_updates_agree(output):
    """The way that two optimiser steps went, compared by length of the difference: a wrong gradient is of order one."""
    one, two = (runs.load_checkpoint(output / name / "last.pt") for name in ("plain", "triton"))
    torch.manual_seed(one["config"]["seed"])
    start = dict(create_model(one["config"]["model"], one["config"]["num_classes"]).named_parameters())
    way = torch.cat([(one["model"][name] - value.detach()).flatten() for name, value in start.items()])
    other = torch.cat([(two["model"][name] - value.detach()).flatten() for name, value in start.items()])
    assert way.norm() > 0
    assert (way - other).norm() / way.norm() < 0.02


def test_evaluations_agree(output, data, tmp_path):
    cards = {}
    for name, env in (("plain", {}), ("triton", INTERPRET)):
        done = fastreg(
            *f"eval {output / 'plain'} --suite clean,fgsm,occlusion,calibration,imagenet-c --data-dir {data}".split(),
            *f"--constants tiny64 --corruptions gaussian_noise,contrast --out {tmp_path / name}".split(),
            **env,
        )
        assert done.returncode == 0, done.stderr
        cards[name] = json.loads((tmp_path / name / "scorecard.json").read_text())
    plain, triton = _numbers(cards["plain"]["suites"]), _numbers(cards["triton"]["suites"])
    assert plain.keys() == triton.keys()
    assert len(plain) > 10
    for key, value in plain.items():
        assert triton[key] == pytest.approx(value, rel=1e-3, abs=1e-3), key


def _numbers(tree, path: str = "") -> dict[str, float]:
    """Every number of a scorecard's suites by its path, times left out."""
    if isinstance(tree, dict):
        return {k: v for key, below in tree.items() for k, v in _numbers(below, f"{path}/{key}").items()}
    if isinstance(tree, list):
        return {k: v for i, below in enumerate(tree) for k, v in _numbers(below, f"{path}/{i}").items()}
    timed = any(word in path for word in ("second", "rate", "date"))
    return {path: float(tree)} if isinstance(tree, int | float) and not timed else {}
