"""Weights in the files of other training scripts are found under any key, or differences are named."""

import argparse

import pytest
import torch
from torch import nn

from fastreg import models
from fastreg.errors import InputError
from fastreg.evaluation import load_classifier
from fastreg.runs import save_checkpoint

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Tiny(nn.Module):
    def __init__(self, num_classes, blocks=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4)) for _ in range(blocks))
        )
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.fc(self.layer1(self.bn1(self.conv1(x))).mean((2, 3)))


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", Tiny)


def network(classes=5, seed=0, blocks=1):
    torch.manual_seed(seed)
    return Tiny(classes, blocks).eval()


@pytest.fixture(scope="module")
def own():
    return network().state_dict()


@pytest.fixture(scope="module")
def other():
    return network(seed=1).state_dict()


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def logits(path, **more):
    net, config = load_classifier(weights=path, model="tiny", **more)
    with torch.no_grad():
        return net(X), config


def expected(state):
    net = network()
    net.load_state_dict(state)
    with torch.no_grad():
        return net(X)


def test_a_fastreg_checkpoint_is_refused_as_plain_weights(own, tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(path, {"model": own, "config": {"eval_size": 64}})
    with pytest.raises(InputError, match=f"best.pt is a fastreg checkpoint.*`fastreg eval {path}`"):
        logits(path)
    assert torch.equal(logits(path, weights_key="model")[0], expected(own))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "model.", "net.", "backbone."])
@pytest.mark.parametrize(
    "keys", [(), ("state_dict",), ("model",), ("net",), ("model_state_dict",), ("a", "b")], ids=str
)
def test_one_prefix_and_any_dict_are_removed(own, tmp_path, prefix, keys):
    content = under(prefix, own)
    for key in keys:
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "lr": 0.1}}
    torch.save(content, tmp_path / "w.pth")
    found, config = logits(tmp_path / "w.pth")
    assert torch.equal(found, expected(own))
    assert config.get("weights_key", "") == ".".join([*reversed(keys), prefix]).strip(".")


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model", "ema.module"),
        ("net", "swa_model"),
        ("model", "model_averaged"),
    ],
)
def test_averaged_weights_are_offered_by_name(own, other, tmp_path, raw, averaged):
    content = {raw: own}
    place = content
    *outer, last = averaged.split(".")
    for key in outer:
        place = place.setdefault(key, {})
    place[last] = other
    torch.save(content, tmp_path / "w.pth")
    found, config = logits(tmp_path / "w.pth")
    assert torch.equal(found, expected(own))
    assert config["weights_note"] == f"{raw} of the file, which also has {averaged}"
    found, config = logits(tmp_path / "w.pth", weights_key=averaged)
    assert torch.equal(found, expected(other))
    assert config["weights_key"] == averaged
    with pytest.raises(InputError, match=f"unknown `weights_key` 'emma': known are {raw}, {averaged}"):
        logits(tmp_path / "w.pth", weights_key="emma")


def test_raw_and_averaged_under_prefixes_of_one_dict(own, other, tmp_path):
    content = under("model.", own) | under("model_ema.", other) | {"criterion.weight": torch.ones(5)}
    torch.save({"state_dict": content}, tmp_path / "w.ckpt")
    assert torch.equal(logits(tmp_path / "w.ckpt")[0], expected(own))
    assert torch.equal(logits(tmp_path / "w.ckpt", weights_key="state_dict.model_ema")[0], expected(other))


def test_several_that_fit_are_not_guessed(own, other, tmp_path):
    torch.save({"student": own, "teacher": other}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="several weights that fit tiny: give one of student, teacher as"):
        logits(tmp_path / "w.pth")
    assert torch.equal(logits(tmp_path / "w.pth", weights_key="teacher")[0], expected(other))


def test_averaged_models_and_settings_of_torch(own, tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(network())
    torch.save({"model": averaged.state_dict(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth")
    assert torch.equal(logits(tmp_path / "w.pth")[0], expected(own))


def test_safetensors(own, tmp_path):
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in under("model.", own).items()}, tmp_path / "w.safetensors")
    assert torch.equal(logits(tmp_path / "w.safetensors")[0], expected(own))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        logits(tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match="no weights at"):
        logits(tmp_path / "absent.safetensors")


def test_torchscript_and_exported_programs_are_named(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).eval()
    torch.jit.trace(net, torch.ones(1, 3, 1, 1)).save(str(tmp_path / "w.pt"))
    with pytest.raises(InputError, match="is a TorchScript archive, not a state dict"):
        logits(tmp_path / "w.pt")
    torch.export.save(torch.export.export(net, (torch.ones(1, 3, 1, 1),)), tmp_path / "w.pt2")
    with pytest.raises(InputError, match="is an exported program, not a state dict"):
        logits(tmp_path / "w.pt2")


def test_a_mismatch_shows_names_of_both_sides(own, tmp_path):
    torch.save(under("encoder.", {f"{name}_": value for name, value in own.items()}), tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        logits(tmp_path / "w.pth")
    message = str(caught.value)
    assert "14 tensors are missing (conv1.weight, conv1.bias, bn1.weight, ...)" in message
    assert "16 tensors are unknown (encoder.conv1.weight_, encoder.conv1.bias_, encoder.bn1.weight_, ...)" in message
    torch.save({"state_dict": network(blocks=2).state_dict()}, tmp_path / "w.pth")
    few = r"^state_dict of .*: 0 tensors are missing, 7 tensors are unknown \(layer1\.1\.0\.weight, "
    with pytest.raises(InputError, match=few):
        logits(tmp_path / "w.pth")


def test_the_number_of_classes_is_the_files(own, tmp_path):
    torch.save(own, tmp_path / "w.pth")
    found, config = logits(tmp_path / "w.pth")
    assert config["num_classes"] == found.shape[1] == 5
    with pytest.raises(InputError, match="has 5 classes but the data has 7"):
        logits(tmp_path / "w.pth", num_classes=7)


def test_a_key_without_weights_is_refused():
    with pytest.raises(InputError, match="`weights_key` is for a file of `weights`"):
        load_classifier(model="timm:resnet18", weights_key="ema")
