"""A user's own model: called with what it takes, refused in one sentence, and never taken from a file."""

import sys

import pytest
import torch
from torch import nn

from fastreg import files, runs
from fastreg.errors import InputError
from fastreg.evaluation import load_classifier
from fastreg.models import create_model
from fastreg.training.run_config import continue_config
from tests.support import write_tiny_imagenet

MODULE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=7):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))

def fixed():
    return Net(5)

def kwargs(**given):
    return Net(**given)

def broken(num_classes):
    raise RuntimeError("no such file\\nmore")

def other(num_classes):
    return {}

made = Net(2)
number = 3

class group:
    inner = Net
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """``mymodels.nets`` in the current folder, which is not on the path."""
    (tmp_path / "mymodels").mkdir()
    (tmp_path / "mymodels" / "nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("mymodels")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "outputs"), [("Net", 4), ("fixed", 5), ("kwargs", 4), ("made", 2), ("group.inner", 4)]
)
def test_the_function_gets_the_number_of_classes_if_it_takes_it(name, outputs):
    net = create_model(f"mymodels.nets:{name}", 4)
    assert isinstance(net, nn.Module)
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, outputs)


def test_without_a_number_the_function_decides():
    net, config = load_classifier(model="mymodels.nets:Net")
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 7)
    assert (config["num_classes"], config["checkpoint"]) == (None, "mymodels.nets:Net")
    assert not net.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mymodels.net:Net", "there is no module 'mymodels.net'"),
        ("timmm:resnet18", "there is no module 'timmm': give package.module:function .* or timm:NAME"),
        ("mymodels.nets:Nett", "unknown `model` mymodels.nets:Nett: .* did you mean 'Net'"),
        ("mymodels.nets:broken", r"fails \(RuntimeError: no such file\): mend that function"),
        ("mymodels.nets:other", "returns dict: name a function that returns an nn.Module"),
        ("mymodels.nets:number", "is int: name a function"),
        ("mymodels.nets:", "unknown model 'mymodels.nets:': known are .*package.module:function"),
    ],
)
def test_what_cannot_be_called_is_one_sentence(name, message):
    with pytest.raises(InputError, match=message) as caught:
        create_model(name, 4)
    assert "\n" not in str(caught.value)


def save(folder, model):
    config = {"dataset": "folder", "data_dir": str(folder), "model": model, "model_args": {}, "stem": "imagenet"}
    config |= {"num_classes": 4, "classes": list("abcd"), "eval_size": 32, "epochs": 1, "batch_size": 8}
    files.write_json(folder / "config.json", {**config, "global_batch": 8, "grad_accum_steps": 1})
    state = create_model(model, 4).state_dict()
    runs.save_checkpoint(folder / "best.pt", {"config": config, "model": state})
    return config


def test_a_checkpoint_alone_runs_no_code(tmp_path):
    save(tmp_path / "run", "mymodels.nets:Net")
    del sys.modules["mymodels.nets"]
    with pytest.raises(InputError, match="code that a file names is not run: give that name as `model` too"):
        load_classifier(tmp_path / "run")
    assert "mymodels.nets" not in sys.modules
    net, config = load_classifier(tmp_path / "run", model="mymodels.nets:Net")
    assert net(torch.zeros(1, 3, 8, 8)).shape == (1, 4)
    assert config["classes"] == list("abcd")
    with pytest.raises(InputError, match="does not fit the model"):
        load_classifier(tmp_path / "run", model="mymodels.nets:fixed")


def test_a_checkpoint_of_another_model_has_no_own_one(tmp_path):
    save(tmp_path / "run", "resnet18")
    with pytest.raises(InputError, match=r"is a checkpoint of resnet18, not of `model` mymodels.nets:Net"):
        load_classifier(tmp_path / "run", model="mymodels.nets:Net")


def test_a_resumed_run_needs_the_name_again(tmp_path):
    data = write_tiny_imagenet(tmp_path / "data", train=1, val=1)
    settings = save(tmp_path / "run", "mymodels.nets:Net") | {"global_batch": 8, "data_dir": str(data)}
    with pytest.raises(InputError, match=r"the run to resume is of your own model mymodels.nets:Net"):
        continue_config("folder", settings, gpu=False)
    config, _ = continue_config("folder", settings, gpu=False, model="mymodels.nets:Net")
    assert config.model == "mymodels.nets:Net"
