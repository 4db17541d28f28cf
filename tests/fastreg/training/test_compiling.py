"""``torchcompile`` "auto": the choice, and that each model it may choose becomes one program without a graph break."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from fastreg import models
from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.methods import create
from fastreg.models import pyramidnet, resnet
from fastreg.training import train
from fastreg.training.compiling import FAMILIES, FEWEST_STEPS, compiles, resolve_torchcompile
from fastreg.training.config import Config
from tests.fastreg.training import tiny_runs as tiny
from tests.support import peer

GPU, CPU = World(0, 1, torch.device("cuda", 0)), World(0, 1, torch.device("cpu"))
ONE_OF_EACH = {
    "timm": "resnet18 resnext50_32x4d wide_resnet50_2 seresnet18 regnetx_002 convnext_atto efficientnet_b0 "
    "mobilenetv3_small_050 vit_tiny_patch16_224 deit_tiny_patch16_224 swin_tiny_patch4_window7_224 mixer_s32_224",
    "torchvision": "resnet18 resnext50_32x4d wide_resnet50_2 regnet_x_400mf convnext_tiny efficientnet_b0 "
    "mobilenet_v3_small vgg11 vit_b_32",
}
FAST = ("timm:resnet18", "timm:vit_tiny_patch16_224", "torchvision:resnet18")


def resolved(reg="mixup", world=GPU, steps=10_000, dataset="imagenet", **more):
    config = Config(dataset, reg=reg, batch_size=256, **more)
    return resolve_torchcompile(config, create(reg, dataset=dataset), world, steps)


def test_the_choice(caplog):
    caplog.set_level(logging.INFO, "fastreg")
    assert resolved() == "default"
    assert "compiling resnet50 (torch.compile, mode default)" in caplog.text
    assert resolved(dataset="cifar100", model="pyramidnet200", reg="cutmix+shakedrop") == "reduce-overhead"
    assert resolved(dataset="cifar100", reg="adversarial") == "default"  # several passes in a step
    assert resolved(dataset="cifar100", world=World(0, 2, GPU.device)) == "default"
    assert resolved(model="timm:resnet50.a1_in1k") == "default"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"model": "timm:eva02_base"}, "timm:eva02_base is not compiled: it is not among the models that are known"),
        ({"sync_bn": True}, "resnet50 is not compiled: sync_bn exchanges statistics between its layers"),
        ({"steps": FEWEST_STEPS - 1}, "resnet50 is not compiled: the run has 999 steps only"),
    ],
)
def test_the_reason_against_it_is_one_line(given, reason, caplog):
    caplog.set_level(logging.INFO, "fastreg")
    assert resolved(**given) is None
    assert len(caplog.messages) == 1
    assert reason in caplog.text


def test_a_cpu_compiles_on_request_only(caplog):
    caplog.set_level(logging.INFO, "fastreg")
    assert resolved(world=CPU) is None
    assert resolved(world=CPU, torchcompile="default") == "default"
    for word in ("off", None):  # None: config.json of an old run
        assert resolved(torchcompile=word) is None
    assert not caplog.text


def test_an_old_run_resumes_uncompiled(data, tmp_path, quick):
    """Its config.json has the old default, None; a new run with the default is the same run."""
    folder = train(tiny.settings("none", tmp_path, data, epochs=1, torchcompile=None))
    assert train(tiny.settings("none", tmp_path, data, epochs=1), resume="auto") == folder
    assert train(tiny.settings("none", tmp_path, data, epochs=1), resume=str(folder)) == folder


def breaks(model: torch.nn.Module, side: int) -> list[str]:
    """The graph breaks of a model in training mode."""
    torch._dynamo.reset()
    found = torch._dynamo.explain(model.train())(torch.randn(2, 3, side, side))
    assert found.graph_count == 1 + found.graph_break_count
    return [str(reason) for reason in found.break_reasons]


# small models with the blocks of the deep ones
SHALLOW = {
    "resnet18": lambda: models.create_model("resnet18", 10, shakedrop=True),
    "resnet50": lambda: resnet.ResNet(resnet.Bottleneck, (1, 1, 1, 1), 10),
    "pyramidnet200": lambda: pyramidnet.PyramidNet(11, 12, True, 10, shakedrop=True),
    "pyramidnet110": lambda: pyramidnet.PyramidNet(8, 12, False, 10, shakedrop=True),
}


@pytest.mark.parametrize("name", SHALLOW)
def test_the_blocks_of_own_models_have_no_graph_break(name):
    assert breaks(SHALLOW[name](), 32) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_own_models_have_no_graph_break(name):
    assert compiles(name)
    assert breaks(models.create_model(name, 10), 32) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(full, marks=() if full in FAST else pytest.mark.slow)
        for package, names in ONE_OF_EACH.items()
        for full in (f"{package}:{name}" for name in names.split())
    ],
)
def test_one_model_of_each_family_has_no_graph_break(name):
    peer(name.partition(":")[0])
    assert compiles(name)
    assert breaks(models.create_model(name, 10), 224) == []


def test_every_family_has_its_model():
    for package, families in FAMILIES.items():
        for family in families:
            assert any(name.startswith(family) for name in ONE_OF_EACH[package].split()), family
    assert not compiles("timm:vitamin_base_224")
    assert not compiles("package.module:function")


def test_a_cpu_without_a_compiler_is_refused_before_the_run(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler on a CPU, and no-such-compiler is not"):
        resolved(world=CPU, torchcompile="default")
    assert resolved(world=GPU, torchcompile="default") == "default"
    assert resolved(world=CPU) is None
    assert resolved(world=CPU, torchcompile="off") is None
    monkeypatch.setenv("CXX", sys.executable)
    assert resolved(world=CPU, torchcompile="default") == "default"
