"""The fast CIFAR recipe: its network against a plain version, its whitening, its flips, a run on the sample."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastreg import methods, runs
from fastreg.errors import InputError
from fastreg.evaluation.load_model import load_run
from fastreg.models import create_model
from fastreg.pipelines import make_loader, open_dataset, write_sample
from fastreg.training import make_config, train
from fastreg.training.train_step import TrainStep
from tests.fastreg.training import tiny_runs as tiny
from tests.fastreg.training.tiny_runs import ALONE, STATISTICS


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    pytest.importorskip("skimage", reason="skimage, whose images the sample is made of, is not installed")
    root = tmp_path_factory.mktemp("sample")
    write_sample("cifar100", root / "cifar100")
    return root


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain(model, x):
    """Evaluation mode in functions, from the state dict alone."""
    w = model.state_dict()
    x = F.gelu(F.conv2d(x, w["whitening"]))
    for block in range(3):
        for conv, norm in ((0, 2), (4, 5)):
            x = F.conv2d(x, w[f"blocks.{block}.{conv}.weight"], padding=1)
            x = F.max_pool2d(x, 2) if conv == 0 else x
            mean, var, weight, bias = (
                w[f"blocks.{block}.{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
            )
            x = F.gelu(F.batch_norm(x, mean, var, weight, bias))
    return F.max_pool2d(x, 3).flatten(1) @ w["head.weight"].T / 9


def test_the_network_agrees_with_a_plain_version():
    torch.manual_seed(0)
    model = create_model("cifarnet", 10)
    assert sum(p.numel() for p in model.parameters()) == 1_972_480
    first = model.blocks[1][0].weight
    assert torch.equal(first[:64].flatten(1).argmax(1), 9 * torch.arange(64) + 4)  # the identity on its inputs
    assert first[:64].count_nonzero() == 64
    for module in model.modules():  # nothing at its neutral starting value
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                value.add_(0.3 * torch.rand_like(value))
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model.eval()(x), plain(model, x))


def test_whitened_patches_are_uncorrelated_and_of_unit_size():
    torch.manual_seed(0)
    smooth = F.avg_pool2d(torch.randn(40, 3, 36, 36), 5, 1) + torch.randn(40, 1, 1, 1)
    model = create_model("cifarnet", 10)
    model.whiten(smooth)
    rows = F.conv2d(smooth.double(), model.whitening.double()).permute(1, 0, 2, 3).flatten(1)
    assert torch.equal(rows[12:], -rows[:12])
    covariance = rows[:12] @ rows[:12].T / rows.shape[1]
    size = covariance.diagonal()
    assert ((size > 0) & (size < 1)).all()  # e / (e + the floor)
    assert size[-1] > 0.99
    assert (covariance - size.diag()).abs().max() < 1e-5


def test_a_run_starts_from_its_own_images_and_keeps_them(data, tmp_path, monkeypatch):
    config, _ = make_config("cifar100", gpu=False, recipe="fast/cifar100/cifarnet", batch_size=36, model_ema_decay=0.9)
    source = open_dataset("cifar100", "train", data / "cifar100")
    engines = [TrainStep(config, 12, *STATISTICS, ALONE) for _ in range(2)]
    for engine in engines:
        engine.begin(source)
    model, ema = engines[0].model, engines[0].ema
    assert torch.equal(model.whitening, ema.whitening)
    assert torch.equal(model.whitening, engines[1].model.whitening)
    before = model.whitening.clone()
    tiny.advance(engines[0], range(2))
    assert torch.equal(model.whitening, before)
    assert torch.equal(ema.whitening, before)
    with pytest.raises(InputError, match="needs images of one size"):
        engines[0].begin(type("Folder", (), {"canvas": None}))


@pytest.mark.slow
def test_the_recipe_learns_on_the_sample_and_its_run_is_read_again(data, tmp_path, monkeypatch, messages):
    """A quarter of the pixels, and a batch size that gives several batches of the sample."""
    monkeypatch.setenv("FASTREG_DATA", str(data))
    quick = {"batch_size": 48, "epochs": 1, "size": 16, "output": str(tmp_path), "name": "run", "device": "cpu"}
    config, _ = make_config("cifar100", gpu=False, recipe="fast/cifar100/cifarnet", **quick)
    assert (config.model, config.reg, config.shift, config.ls) == ("cifarnet", "alternating_flip", 2, 0.2)
    assert config.lr == pytest.approx(1.5 * 48 / 1024)
    folder = train(config)
    assert any(line.startswith("loader resident") for line in messages)
    rows = [row for row in runs.read_rows(folder / "log.jsonl") if row["kind"] == "epoch"]
    assert rows[-1]["val_top1_error"] < 50  # chance is 91.7
    model, read = load_run(folder)
    assert read["model"] == "cifarnet"
    assert torch.equal(model.whitening, runs.load_checkpoint(folder / "last.pt")["model"]["whitening"])


def test_flips_alternate_from_epoch_to_epoch():
    indices = torch.arange(2000)
    method = methods.create("alternating_flip", dataset="cifar10", seed=3)
    flips = [method.draw(indices, indices, step, epoch=epoch)[0].flip for step, epoch in ((0, 0), (7, 1), (9, 2))]
    assert torch.equal(flips[0], ~flips[1])
    assert torch.equal(flips[0], flips[2])
    assert abs(flips[0].float().mean() - 0.5) < 0.04
    assert torch.equal(method.plain(indices, indices, 4, epoch=1)[0].flip, flips[1])
    mixed = methods.create("mixup+alternating_flip", dataset="cifar10", seed=3)
    assert torch.equal(mixed.draw(indices, indices, 1, epoch=2)[0].flip, flips[2])


def test_images_shift_by_the_setting(data):
    source = open_dataset("cifar100", "train", data / "cifar100")
    for shift in (0, 2, 4):
        loader = make_loader(source, train=True, batch_size=len(source), size=32, shift=shift)
        (batch,) = loader.batches()
        moved = batch.crop[:, :2]
        assert sorted(moved.unique().tolist()) == list(range(-shift, shift + 1))
        assert np.array_equal(batch.crop[:, 2:], np.full((len(source), 2), 32))
        assert math.isclose(moved.mean().item(), 0, abs_tol=0.3)
