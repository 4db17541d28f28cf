"""The heads of the method modules: their parts, their examples, and the READMEs that are made from them."""

from __future__ import annotations

import ast
import inspect
import re

import numpy as np
import pytest

from fastreg import methods
from fastreg.methods import __main__ as heads
from fastreg.training import make_config

BARE = {"none", "no_crop_flip"}  # without a formula and parameters


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_head_names_source_defaults_cost_and_example(name):
    head = inspect.getdoc(inspect.getmodule(methods.METHODS[name]))
    for part in ("Source:", "Cost:", "Example:", *(() if name in BARE else ("Defaults:",))):
        assert part in head, f"{name} has no {part}"
    if name not in BARE:
        assert re.search(r"^    \S", head, re.MULTILINE), f"{name} has no formula"
    examples = re.findall(r"``(.*?)``", head.split("Example:")[1], re.DOTALL)
    assert any(example.startswith(("fastreg train", "methods.create")) for example in examples)
    for example in examples:
        if example.startswith("fastreg train"):
            words = example.split()
            flags = dict(zip(words[3::2], words[4::2], strict=True))
            config, _ = make_config(words[2], gpu=True, reg=flags.pop("--reg"), ls=float(flags.pop("--ls", 0)))
            assert not flags
            assert methods.create(config.reg, dataset=config.dataset).name
        elif example.startswith("methods.create"):
            images = np.zeros((2, 8, 8, 3), np.uint8)
            assert isinstance(eval(example, {"methods": methods, "images": images}), methods.Method)


@pytest.mark.parametrize("name", methods.METHODS)
def test_no_method_reads_torchs_or_numpys_global_generators(name):
    """A run is resumed from its step alone, so all random numbers come from Philox."""
    module = inspect.getmodule(methods.METHODS[name])
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert not {call for call in called if re.search(r"\b(random|rand|randn|randint|randperm|bernoulli)\b", call)}


def test_the_readmes_are_up_to_date():
    """If not: python -m fastreg.methods."""
    for path, text in heads.rewritten().items():
        assert path.read_text() == text


def test_the_table_names_every_method_once_with_its_head():
    rows = heads.method_table().splitlines()[2:]
    named = [name for row in rows for name in re.findall(r"`([\w+]+)`", row.split("|")[1])]
    assert sorted(named) == sorted([*methods.METHODS, "mixup+cutmix"])
    assert heads.method_names() == " ".join(f"`{name}`" for name in [*methods.METHODS, "mixup+cutmix"])
    (mixup,) = (row for row in rows if row.startswith("| `mixup` |"))
    cells = mixup.strip("| ").split(" | ")
    assert cells[1:3] == [
        "Mixup: blends each image and label with a partner's.",
        "alpha 1.0, prob 1.0 on CIFAR and ImageNet alike.",
    ]
    assert cells[3].startswith("Zhang et al., mixup: beyond empirical risk minimization (ICLR 2018), section 2; alpha")
    assert all(len(row.replace(r"\|", "").split("|")) == 6 for row in rows)
