"""The options of an evaluation: their names, their values, and what mean, std and precision mean."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation.config import EvalConfig
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images, tiny_net


class Untouched(nn.Module):
    """A model that must not run."""

    def forward(self, x):
        pytest.fail("worked before the options were checked")


def test_every_option_is_a_parameter_of_evaluate():
    parameters = inspect.signature(evaluate).parameters
    assert list(parameters) == ["model", "suites", "data", *EvalConfig.__dataclass_fields__]
    assert {parameters[name].kind for name in EvalConfig.__dataclass_fields__} == {inspect.Parameter.KEYWORD_ONLY}
    assert parameters["precision"].default == "fp32"
    assert parameters["mean"].default == parameters["std"].default == "data"
    for name in EvalConfig.__dataclass_fields__:
        assert name in evaluate.__doc__


def test_an_unknown_option_names_the_nearest(data):
    with pytest.raises(InputError, match=r"unknown option of evaluate 'epsilonn'.*did you mean 'epsilon'"):
        evaluate(Untouched(), "clean", data, epsilonn=0.1)


@pytest.mark.parametrize(
    "given",
    [
        {"mean": MEAN, "std": STD},
        {"mean": list(MEAN), "std": np.array(STD)},
        {"mean": torch.tensor(MEAN, dtype=torch.float64), "std": torch.tensor(STD, dtype=torch.float64)},
        {"mean": np.array(MEAN).reshape(1, 3, 1, 1), "std": torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)},
        {"mean": MEAN},
        {"std": list(STD)},
    ],
)
def test_mean_and_std_as_any_three_numbers(net, data, given):
    assert evaluate(net, "clean", data, **given).results("clean") == without_seconds(net, data)


def without_seconds(net, data, **given):
    return AnySeconds(evaluate(net, "clean", data, **given).results("clean"))


class AnySeconds(dict):
    def __eq__(self, other):
        return [{**row, "seconds": 0} for row in self.values()] == [{**row, "seconds": 0} for row in other.values()]

    __hash__ = None


@pytest.mark.parametrize("half", [0.5, torch.tensor(0.5), np.float32(0.5), [0.5], (np.float64(0.5),)])
def test_one_number_stands_for_all(net, data, half):
    card = evaluate(net, "clean", data, mean=half, std=half)
    assert card.model["mean"] == card.model["std"] == [0.5, 0.5, 0.5]


def test_none_for_both_gives_the_model_pixels(data):
    class Range(nn.Module):
        def forward(self, x):
            assert x.min() >= 0 and x.max() <= 1  # noqa: PT018
            return x.mean((2, 3)).repeat(1, 2)

    card = evaluate(Range(), "clean", data, mean=None, std=None)
    assert card.model["mean"] == [0.0] * 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": None}, "`mean` is None but `std` is 'data'"),
        ({"std": None}, "`std` is None but `mean` is 'data'"),
        ({"mean": None, "std": STD}, "`mean` is None but `std` is"),
        ({"mean": MEAN, "std": None}, "`std` is None but `mean` is"),
        ({"mean": "imagenet"}, "`mean` is 'imagenet': give \"data\", None, or three numbers"),
        ({"std": "none"}, "`std` is 'none'"),
        ({"std": "0.5"}, "`std` is '0.5'"),
        ({"mean": (123.675, 116.28, 103.53), "std": (58.4, 57.1, 57.4)}, "`mean` holds 123.675, but pixels are in"),
        ({"std": (0.2, 0.2, 1.5)}, "`std` holds 1.5, but pixels are in"),
        ({"mean": 128}, "`mean` holds 128, but pixels are in"),
        ({"std": 0}, "`std` holds 0: give numbers greater than 0"),
        ({"std": (0.2, -0.2, 0.2)}, "`std` holds -0.2"),
        ({"std": (0.2, float("nan"), 0.2)}, "`std` holds nan"),
        ({"mean": (0.4, 0.5)}, "`mean` is (0.4, 0.5)"),
        ({"mean": [[0.4, 0.5, 0.6], [0.4, 0.5, 0.6]]}, "`mean` is [["),
        ({"mean": True}, "`mean` is True"),
        ({"std": {0.2}}, "`std` is {0.2}"),
        ({"precision": "half"}, "unknown `precision` 'half'"),
        ({"batch_size": -1}, "`batch_size` is -1"),
        ({"epsilon": float("nan")}, "`epsilon` is nan"),
    ],
)
def test_values_that_no_evaluation_can_have_are_refused_before_any_work(given, message, data):
    with pytest.raises(InputError) as caught:
        evaluate(Untouched(), "clean", data, **given)
    assert message in str(caught.value)


def test_auto_means_fp32(net, data):
    auto, full = (evaluate(net, "clean,fgsm", data, precision=name) for name in ("auto", "fp32"))
    assert auto.settings == full.settings == {"precision": "fp32", "tf32": False, "seed": 0, "loader": "folder"}
    assert auto.summary() == full.summary()


@pytest.mark.parametrize("gpu", ["with bf16", "without bf16"])
def test_the_command_measures_in_float32_whatever_the_gpu(gpu, monkeypatch, tmp_path, imagenet):
    from fastreg.evaluation import from_checkpoint
    from fastreg.models import create_model

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a, **k: gpu == "with bf16")
    torch.save(create_model("resnet18", 4).state_dict(), tmp_path / "w.pth")
    given = {"weights": tmp_path / "w.pth", "model": "resnet18", "data_dir": imagenet.root, "runs_root": tmp_path}
    seen = []
    monkeypatch.setattr(from_checkpoint, "evaluate", lambda *a, **options: seen.append(EvalConfig(**options)))
    for more in ({}, {"precision": "auto"}):
        from_checkpoint.run(**given, **more)
    assert [config.precision for config in seen] == ["fp32"] * 2


def test_half_precision_is_noted_on_the_card(net):
    data = tiny_images(8)
    assert not any(note.startswith("precision") for note in evaluate(tiny_net(), "clean", data).notes())
    card = evaluate(net, "clean", data, precision="bf16")
    assert "precision: measured in bf16; published figures are of float32." in card.notes()
    assert "precision bf16 instead of fp32" in card.measuring
