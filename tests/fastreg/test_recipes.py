"""Names of recipes: the automatic choice, copies of the settings, and errors."""

from __future__ import annotations

import pytest

from fastreg.errors import InputError
from fastreg.recipes import ALL, resolve


@pytest.mark.parametrize(
    ("dataset", "gpu", "chosen"),
    [
        ("imagenet", True, "paper/imagenet/baseline"),
        ("imagenet", False, "short/imagenet"),
        ("folder", True, "paper/imagenet/baseline"),
        ("cifar10", True, "paper/cifar100/baseline"),
        ("cifar100", False, "short/cifar"),
    ],
)
def test_auto_depends_on_data_set_and_device(dataset, gpu, chosen):
    settings, line = resolve("auto", dataset, gpu=gpu)
    assert settings == ALL[chosen]
    assert line.startswith(f"recipe {chosen} (")
    assert f"batch {settings['global_batch']}" in line


def test_settings_are_a_copy():
    settings, _ = resolve("paper/imagenet/mixup", "imagenet", gpu=False)
    settings["epochs"] = 1
    assert ALL["paper/imagenet/mixup"]["epochs"] == 300


@pytest.mark.parametrize(
    ("name", "dataset", "message"),
    [
        ("paper/imagenet/mixpu", "imagenet", r"unknown `recipe` .*did you mean 'paper/imagenet/mixup'"),
        ("paper/imagenet/mixup", "cifar100", "`recipe` 'paper/imagenet/mixup' is for imagenet, not for cifar100"),
        ("short/cifar", "imagenet", "is for cifar, not for imagenet"),
    ],
)
def test_what_is_no_recipe_of_the_data_set_is_named(name, dataset, message):
    with pytest.raises(InputError, match=message):
        resolve(name, dataset, gpu=True)
