"""Optimizers and groups of parameters, beside timm's and torch's own; every optimizer resumes bit for bit."""

from __future__ import annotations

import io
import sys

import pytest
import torch
from torch import nn

from fastreg.errors import InputError
from fastreg.models import create_model
from fastreg.training import Config
from fastreg.training.optimizer import build_optimizer, layer_numbers, load_state
from tests.support import peer

TIMM = [
    "lamb",
    "lars",
    "adamp",
    "nadamw",
    "lion",
    "adafactor",
    "madgrad",
    "novograd",
    "muon",
    "rmsproptf",
    "adopt",
    "sgdp",
]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    )


def go(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 + step)
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def config(opt: str, **more) -> Config:
    return Config("imagenet", opt=opt, **{"lr": 0.01, "weight_decay": 0.05, "norm_weight_decay": False, **more})


@pytest.mark.parametrize("opt", ["sgd", "adam", "adamw", *(f"timm:{name}" for name in [*TIMM, "lookahead_adamw"])])
def test_every_optimizer_resumes_bit_identical(opt):
    if opt.startswith("timm:"):
        peer("timm.optim")
    model, file = net(), io.BytesIO()
    optimizer = build_optimizer(config(opt), model)
    go(model, optimizer, range(3))
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    go(model, optimizer, range(3, 6))
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    other = net()
    other.load_state_dict(weights)
    again = build_optimizer(config(opt), other)
    load_state(again, state)
    go(other, again, range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(model.state_dict().values(), other.state_dict().values()))
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), net().parameters()))


@pytest.mark.parametrize(
    ("opt", "theirs", "more"),
    [
        ("adamw", "adamw", {"opt_eps": 1e-6, "opt_betas": (0.8, 0.95)}),
        ("adam", "adam", {}),
        ("timm:lamb", "lamb", {"opt_eps": 1e-5}),
        ("timm:lars", "lars", {"momentum": 0.8}),
    ],
)
def test_updates_are_those_of_timms_factory(opt, theirs, more):
    create = peer("timm.optim").create_optimizer_v2
    names = {"opt_eps": "eps", "opt_betas": "betas"}
    own, other = net(), net()
    given = {names.get(key, key): value for key, value in more.items()}
    optimizers = (
        build_optimizer(config(opt, **more), own),
        create(other, opt=theirs, lr=0.01, weight_decay=0.05, **given),
    )
    for model, optimizer in zip((own, other), optimizers):
        go(model, optimizer, range(4))
    for p, q in zip(own.parameters(), other.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


def groups(optimizer_groups) -> dict[int, tuple[float, float]]:
    """Weight decay and factor of the rate of each parameter."""
    return {
        id(p): (group["weight_decay"], group.get("lr_scale", 1.0))
        for group in optimizer_groups
        for p in group["params"]
    }


@pytest.mark.parametrize("layer_decay", [None, 0.75])
@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:resnet18", "timm:convnext_atto"])
def test_decay_and_layers_of_timms_models_are_timms(name, layer_decay):
    optim = peer("timm.optim")
    with torch.device("meta"):
        model = create_model(name, 10)
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    kwargs = {"weight_decay": 0.05, "no_weight_decay_list": exempt}
    if layer_decay:
        theirs = optim.param_groups_layer_decay(model, layer_decay=layer_decay, **kwargs)
    else:
        theirs = optim.param_groups_weight_decay(model, **kwargs)
    ours = build_optimizer(config("adamw", layer_decay=layer_decay, model=name), model).param_groups
    assert groups(ours) == groups(theirs)


def test_a_resnets_rates_fall_by_stage():
    with torch.device("meta"):
        models = {name: create_model(name, 10) for name in ("resnet18", "pyramidnet110")}
    layers = layer_numbers("resnet18", models["resnet18"])
    assert layers["conv1.weight"] == layers["bn1.bias"] == 0
    assert [layers[f"layer{k}.1.conv2.weight"] for k in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert layers["fc.weight"] == layers["fc.bias"] == 5
    assert max(layer_numbers("pyramidnet110", models["pyramidnet110"]).values()) == 4
    built = build_optimizer(config("sgd", layer_decay=0.5), models["resnet18"]).param_groups
    assert {group["lr_scale"] for group in built} == {0.5**k for k in range(6)}
    with pytest.raises(InputError, match="`layer_decay` works on timm's models, ResNets and PyramidNets"):
        layer_numbers("mine", net())


def test_position_embeddings_decay_only_in_runs_of_sgd_and_adam_as_before():
    peer("timm")
    with torch.device("meta"):
        model = create_model("timm:vit_tiny_patch16_224", 10)
    decays = {opt: groups(build_optimizer(config(opt), model).param_groups) for opt in ("sgd", "adam", "adamw")}
    assert [decays[opt][id(model.pos_embed)][0] for opt in decays] == [0.05, 0.05, 0.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:lambb", "unknown optimizer of timm 'lambb': .*did you mean 'lamb'"),
        ("timm:adahessian", "needs second derivatives"),
        ("timm:kronw", "draws random numbers that no checkpoint contains"),
    ],
)
def test_optimizers_that_cannot_be_used(name, message):
    peer("timm.optim")
    with pytest.raises(InputError, match=message):
        build_optimizer(config(name), net())


def test_without_timm_its_optimizers_name_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    with pytest.raises(InputError, match=r"`opt` timm:lamb needs timm.optim, which is not installed: pip install"):
        build_optimizer(config("timm:lamb"), net())


def test_nothing_left_to_train_is_an_error():
    with pytest.raises(InputError, match="`freeze` leaves no parameter to train"):
        build_optimizer(config("sgd"), net().requires_grad_(False))
