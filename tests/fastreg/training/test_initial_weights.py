"""Runs that start from weights: published ones, files, run folders; new heads, frozen layers, statistics of images."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastreg import runs
from fastreg.errors import InputError, RunError
from fastreg.evaluation.load_model import load_run
from fastreg.models import check_arguments, create_model
from fastreg.training import Config, train
from fastreg.training.freeze import freeze
from fastreg.training.initial_weights import input_arguments, input_statistics, load_initial_weights
from fastreg.training.train_step import TrainStep
from tests.fastreg.training.tiny_runs import ALONE, STATISTICS, Stopped, batch, settings, stop_at
from tests.support import peer


def trained(name: str, classes: int) -> nn.Module:
    """A model whose weights no other has."""
    torch.manual_seed(7)
    model = create_model(name, classes)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand_like(tensor.float()))
    return model


def start(config: Config, classes: int, **arguments) -> tuple[nn.Module, nn.Module, str]:
    """A model before and after its initial weights, and the message."""
    model = create_model(config.model, classes, stem=config.stem, **arguments)
    before = copy.deepcopy(model)
    return before, model, load_initial_weights(config, model, classes, arguments)


def check_start(before, after, source, head: str, new: bool) -> None:
    """All tensors are the source's; a new head's are those from before."""
    own, was, wanted = after.state_dict(), before.state_dict(), source.state_dict()
    for name, value in own.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, was[name] if new and name.startswith(head) else wanted[name]), name


@pytest.mark.parametrize("classes", [1000, 5])
@pytest.mark.parametrize("name", ["resnet18", "torchvision:mobilenet_v3_small"])
def test_published_weights_of_torchvision(name, classes, monkeypatch):
    models = peer("torchvision.models")
    source = trained(name, 1000)
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda self, **k: source.state_dict(), raising=False)
    config = Config("imagenet", model=name, pretrained=True)
    before, after, message = start(config, classes)
    head = "fc" if name == "resnet18" else "classifier.3"
    check_start(before, after, source, f"{head}.", classes == 5)
    assert message.startswith(f"initial weights: the published ones of {name}")
    assert (f"; new head {head} for 5 classes, was 1,000 classes" in message) == (classes == 5)
    assert input_statistics(config) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize("classes", [1000, 5])
def test_published_weights_of_timm(classes, monkeypatch):
    """timm's own loading, with a stored file in place of a download."""
    peer("timm")
    from timm.models import _builder

    name = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    source = trained(name, 1000)
    monkeypatch.setattr(_builder, "load_state_dict_from_hf", lambda *a, **k: source.state_dict(), raising=False)
    monkeypatch.setattr(_builder, "load_custom_from_hf", lambda *a, **k: pytest.fail("another format"))
    config = Config("imagenet", model=name, pretrained=True)
    arguments = {"drop_path_rate": 0.1}
    before, after, message = start(config, classes, **arguments)
    check_start(before, after, source, "head.", classes == 5)
    assert ("; new head head for 5 classes" in message) == (classes == 5)
    assert input_statistics(config) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_failed_download_is_one_sentence(monkeypatch):
    models = peer("torchvision.models")

    def offline(self, **more):
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", offline, raising=False)
    with pytest.raises(RunError) as caught:
        start(Config("imagenet", model="resnet18", pretrained=True), 5)
    assert str(caught.value) == (
        "the published weights of resnet18 cannot be downloaded (OSError: no route to host): give the file as "
        "`initial_checkpoint`."
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("pyramidnet110", "pyramidnet110 has no published weights, only timm:NAME, torchvision:NAME and resnet18"),
        ("timm:test_vit4", "timm:test_vit4 has no published weights: turn `pretrained` off"),
    ],
)
def test_models_without_published_weights_are_refused(model, message):
    peer("timm")
    with pytest.raises(InputError, match=message):
        load_initial_weights(Config("imagenet", model=model, pretrained=True), nn.Identity(), 5, {})


def in_file(layout: str, source: nn.Module, path: Path) -> dict:
    """Write a file as another training script does, and return the settings that read it."""
    state = source.state_dict()
    if layout == "safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed").torch.save_file(state, path)
    elif layout == "averaged":
        other = {key: torch.zeros_like(value) for key, value in state.items()}
        torch.save({"state_dict": other, "state_dict_ema": state, "arch": "resnet18"}, path)
        return {"weights_key": "state_dict_ema"}
    else:
        torch.save({"epoch": 3, "model": {f"module.{key}": value for key, value in state.items()}}, path)
    return {}


@pytest.mark.parametrize("classes", [4, 9])
@pytest.mark.parametrize("layout", ["prefix", "averaged", "safetensors"])
def test_files_of_other_scripts(layout, classes, tmp_path):
    source, path = trained("resnet18", 9), tmp_path / f"w.{'safetensors' if layout == 'safetensors' else 'pth'}"
    more = in_file(layout, source, path)
    config = Config("imagenet", model="resnet18", initial_checkpoint=str(path), **more)
    before, after, message = start(config, classes)
    check_start(before, after, source, "fc.", classes == 4)
    assert str(path) in message
    assert ("new head fc for 4 classes, was 9 classes" in message) == (classes == 4)
    assert input_statistics(config) is None


def test_parameters_that_the_model_froze_itself_stay_frozen():
    model = create_model("resnet18", 4, stem="cifar")
    model.layer2.requires_grad_(False)
    freeze(model, ["layer1"])
    frozen = {name.split(".")[0] for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen == {"layer1", "layer2"}
    model.train()
    assert not any(module.training for module in model.layer1.modules() if hasattr(module, "running_mean"))
    assert all(module.training for module in model.layer2.modules())  # its statistics are the model's own affair


def test_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(create_model("resnet18", 4, stem="cifar").state_dict(), path)
    for config, message in (
        (Config("imagenet", model="resnet18", initial_checkpoint=str(path)), "conv1.weight is"),
        (Config("imagenet", model="resnet34", initial_checkpoint=str(path)), "does not fit resnet34"),
        (Config("imagenet", initial_checkpoint=str(tmp_path / "x")), "`initial_checkpoint` .*x does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            start(config, 4)


def test_a_run_starts_from_another_run_with_its_statistics(quick, data, tmp_path, messages):
    first = train(settings("mixup", tmp_path / "first", data))
    content = torch.load(first / "last.pt", weights_only=True)
    content["config"]["mean"] = [0.1, 0.2, 0.3]
    torch.save(content, first / "last.pt")
    for where, key in ((first / "last.pt", "ema"), (first, None)):
        messages.clear()
        own = {"initial_checkpoint": str(where), "weights_key": key, "freeze": ("*",), "sched": "constant"}
        own |= {"freeze": ("re:^(?!fc)",), "name": f"from-{key}", "lr": 0.5, "model_ema_decay": None}
        folder = train(settings("none", tmp_path, data, **own))
        (line,) = (line for line in messages if line.startswith("initial weights: "))
        assert f"{key or 'model'} of {first}" in line
        old = torch.load(first / ("last.pt" if key else "best.pt"), weights_only=True)[key or "model"]
        new = torch.load(folder / "last.pt", weights_only=True)["model"]
        changed = {name for name, value in new.items() if not torch.equal(value, old[name])}
        assert changed == {"fc.weight", "fc.bias"}  # the batch norms of frozen layers keep their statistics
        kept = json.loads((folder / "config.json").read_text())["mean"]
        assert kept == ([0.1, 0.2, 0.3] if key else torch.load(first / "best.pt", weights_only=True)["config"]["mean"])


@pytest.mark.parametrize("changes", [{"opt": "adamw", "lr": 1e-3}, {"freeze": ("conv1", "layer1"), "layer_decay": 0.5}])
def test_a_run_from_weights_resumes_bit_identical(changes, quick, data, tmp_path):
    """Also when the file has been removed: a resume reads its own checkpoint."""
    first = train(settings("none", tmp_path / "first", data))
    own = {"initial_checkpoint": str(first / "best.pt"), **changes}
    whole = train(settings("none", tmp_path / "whole", data, **own))
    with quick.context() as patch:
        patch.setattr(TrainStep, "update", stop_at(3))
        with pytest.raises(Stopped):
            train(settings("none", tmp_path / "cut", data, **own))
    (first / "best.pt").unlink()
    cut = train(settings("none", tmp_path / "cut", data, **own), resume="auto")
    one, two = (runs.load_checkpoint(folder / "last.pt")["model"] for folder in (whole, cut))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_frozen_layers_keep_weights_and_statistics_and_others_learn(quick, data):
    config = settings("none", data, data, freeze=("conv1", "bn1", "layer1"), grad_accum_steps=2, model_ema_decay=None)
    step = TrainStep(config, 4, *STATISTICS, ALONE)
    before = copy.deepcopy(step.model.state_dict())
    for k in range(2):
        step.model.train()
        for micro in range(2):
            step.forward_backward(batch(k), k, micro, 16)
        step.update(k, 4)
    still = {name for name, value in step.model.state_dict().items() if torch.equal(value, before[name])}
    frozen = {name for name in before if name.split(".")[0] in ("conv1", "bn1", "layer1")}
    assert {name for name in frozen if "num_batches" not in name} <= still
    assert not {name for name in before if name.startswith(("layer2", "fc"))} & still


def test_patterns_are_globs_modules_and_regular_expressions():
    def trains(*patterns):
        model = create_model("resnet18", 4)
        freeze(model, patterns)
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    everything = trains()
    assert trains("layer1") == {name for name in everything if not name.startswith("layer1.")}
    assert trains("*.bn2", "bn1") == {name for name in everything if ".bn2." not in name and not name.startswith("bn1")}
    assert trains("re:^(?!fc)") == {"fc.weight", "fc.bias"}
    with pytest.raises(InputError, match=r"`freeze` layr1 matches no parameter: there are conv1, bn1, .*, fc\.bias"):
        trains("layr1")
    with pytest.raises(InputError, match=r"`freeze` re:\( is no regular expression"):
        trains("re:(")


@pytest.mark.parametrize(("name", "size"), [("googlenet", 32), ("inception_v3", 80)])
def test_models_with_auxiliary_heads_train_without_them(name, size, data):
    peer("torchvision.models")
    config = settings("none", data, data, model=f"torchvision:{name}", stem="imagenet", size=size, eval_size=size)
    step = TrainStep(config, 4, *STATISTICS, ALONE)
    assert torch.isfinite(step.forward_backward(batch(0, side=size), 0, 0, size))
    assert not any(name.startswith(("aux", "Aux")) for name in step.model.state_dict())
    for pretrained in (False, True):
        config.pretrained = pretrained
        assert input_arguments(config) == ({"transform_input": True} if pretrained else {})


def test_a_size_that_the_model_does_not_take_names_the_flag(data):
    peer("timm")
    for size, more in ((16, {}), (32, {"img_size": 224})):
        config = settings("none", data, data, model="timm:vit_tiny_patch16_224", size=size, model_kwargs=more)
        with pytest.raises(InputError, match=f"`size` is {size}, and timm:vit_tiny_patch16_224 takes images of 224 px"):
            TrainStep(config, 4, *STATISTICS, ALONE)
    config = settings("none", data, data, model="timm:vit_tiny_patch16_224", model_kwargs={"img_size": 16, "depth": 1})
    step = TrainStep(config, 4, *STATISTICS, ALONE)
    assert torch.isfinite(step.forward_backward(batch(0), 0, 0, 16))
    assert step.model_args == {"img_size": 16, "depth": 1}


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (
            "timm:resnet18",
            {"checkpoint_path": "weights.pth"},
            "unknown argument of timm:resnet18 in here: 'checkpoint_path'",
        ),
        ("timm:resnet18", {"pretrained": True}, "unknown argument of timm:resnet18 in here: 'pretrained'"),
        ("timm:resnet18", {"pretrained_cfg": {"url": "x"}}, "'pretrained_cfg'"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "'weights'"),
        ("resnet18", {"stochastic_dept": 0.1}, "did you mean 'stochastic_depth'"),
        ("timm:resnet18", {"drop_rate": {"a": 1}}, "drop_rate is {'a': 1}: give a number"),
    ],
)
def test_arguments_that_reach_other_packages_are_known_ones(model, arguments, message):
    with pytest.raises(InputError, match=message):
        check_arguments(model, arguments, "here")


def test_a_checkpoint_of_a_stranger_passes_no_other_argument_on(quick, data, tmp_path):
    folder = train(settings("none", tmp_path, data))
    content = runs.load_checkpoint(folder / "best.pt")
    content["config"] |= {"model": "timm:resnet18", "model_args": {"checkpoint_path": str(tmp_path / "evil.pt")}}
    torch.save(content, folder / "best.pt")
    with pytest.raises(InputError, match=r"unknown argument of timm:resnet18 in model_args of .*best.pt"):
        load_run(folder)


def test_the_new_run_sees_images_with_the_statistics_of_its_weights(quick, data, tmp_path, monkeypatch):
    """A run's weights were trained with mean 0.25: the loader's bytes are normalized with it."""
    first = train(settings("none", tmp_path / "first", data))
    content = runs.load_checkpoint(first / "best.pt")
    content["config"] |= {"mean": [0.25] * 3, "std": [0.5] * 3}
    torch.save(content, first / "best.pt")
    seen = []
    monkeypatch.setattr(TrainStep, "begin", lambda self, source: seen.append((self.mean, self.std)))
    train(settings("none", tmp_path, data, initial_checkpoint=str(first)))
    assert np.allclose(seen[0], [[0.25] * 3, [0.5] * 3])
