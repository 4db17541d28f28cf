"""The recipes of other projects: their sources' numbers, and a short run of each with all of its settings."""

from __future__ import annotations

import math

import pytest
import torch

from fastreg import runs
from fastreg.published_recipes import PUBLISHED, TARGETS
from fastreg.training import make_config, train
from fastreg.training.recipe_table import recipe_lines
from fastreg.training.schedule import learning_rate
from tests.support import peer

SLOW = ("fast/imagenet/a2", "fast/imagenet/a3")  # as a1, with other numbers


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in PUBLISHED])
def test_a_short_run_keeps_all_settings(name, image_folders, tmp_path):
    """Eight steps; the model, images and batch are small, and the rest is the recipe's."""
    model = PUBLISHED[name]["model"]
    own = {"model": "resnet18", "model_kwargs": PUBLISHED[name].get("model_kwargs", {})}
    if model.startswith("timm:"):
        peer("timm")
        own = {"model": model, "model_kwargs": {"img_size": 32, "depth": 1, **PUBLISHED[name]["model_kwargs"]}}
    if str(PUBLISHED[name]["opt"]).startswith("timm:"):
        peer("timm.optim")
    small = {"size": 32, "batch_size": 8, "epochs": 1, "device": "cpu", "workers": 1, "output": str(tmp_path)}
    config, _ = make_config("imagenet", gpu=False, recipe=name, data_dir=str(image_folders), **small, **own)
    changed = {"lr", "min_lr", "warmup_lr", "global_batch", "eval_size", *small, *own}
    for key, value in PUBLISHED[name].items():
        assert key in changed or getattr(config, key) == value, key
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = train(config)
    torch.set_num_threads(threads)
    rows = runs.read_rows(folder / "log.jsonl")
    assert sum(row["kind"] == "step" for row in rows) == 8
    assert all(math.isfinite(row["loss"]) for row in rows if row["kind"] == "step")
    assert runs.load_checkpoint(folder / "best.pt")["config"]["recipe"] == name


def test_rates_are_those_of_the_sources():
    """Rates at a global batch, in epochs of 10 steps; DeiT's script scales 5e-4 by batch / 512."""
    found = {name: make_config("imagenet", gpu=True, recipe=name)[0] for name in PUBLISHED}
    deit, tv2 = found["fast/imagenet/deit-s"], found["fast/imagenet/tv2-rn50"]
    assert (deit.lr, deit.global_batch) == (5e-4 * 1024 / 512, 1024)
    assert [learning_rate(deit, step, 3000) for step in (0, 25)] == pytest.approx([1e-6, 1e-6 + (1e-3 - 1e-6) / 2])
    assert learning_rate(deit, 1500, 3000) == pytest.approx(1e-5 + (1e-3 - 1e-5) / 2)
    assert [learning_rate(tv2, step, 6000) for step in (0, 50)] == pytest.approx([0.005, 0.5])
    # torchvision: alpha = (1 - 0.99998) * world * batch * steps / epochs
    assert 1 - tv2.model_ema_decay == pytest.approx((1 - 0.99998) * 8 * 128 * 32 / 600)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_names_its_source_and_target(name):
    assert TARGETS[name].startswith("published: ")
    assert "https://" in TARGETS[name]
    assert recipe_lines(name).endswith(TARGETS[name])
    assert TARGETS.keys() == PUBLISHED.keys()
