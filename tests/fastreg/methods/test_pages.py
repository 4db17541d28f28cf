"""Every method's page says what a reader looks for, and its examples run."""

from __future__ import annotations

import ast
import inspect
import re

import numpy as np
import pytest

from fastreg import methods
from fastreg.training import make_config

BARE = {"none", "no_crop_flip"}  # without a formula there is no source to name and nothing to set


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_page_names_source_defaults_cost_and_example(name):
    page = inspect.getdoc(inspect.getmodule(methods.METHODS[name]))
    for part in ("Cost:", "Example:") if name in BARE else ("Source:", "Defaults:", "Cost:", "Example:"):
        assert part in page, f"{name} has no {part}"
    if name not in BARE:
        assert re.search(r"^    \S", page, re.MULTILINE), f"{name} has no formula"
    examples = re.findall(r"``(.*?)``", page.split("Example:")[1], re.DOTALL)
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
def test_no_page_reads_torchs_or_numpys_global_generators(name):
    """A run is resumed from its step alone, so all random numbers come from Philox."""
    module = inspect.getmodule(methods.METHODS[name])
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert not {call for call in called if re.search(r"\b(random|rand|randn|randint|randperm|bernoulli)\b", call)}
