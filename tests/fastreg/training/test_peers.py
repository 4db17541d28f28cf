"""Models and training beside timm and torchvision: the same networks, averages, groups, rates and distributions."""

from __future__ import annotations

import copy
import math
import random
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp

from fastreg import runs
from fastreg.cli import main
from fastreg.errors import InputError
from fastreg.evaluation.load_model import load_run
from fastreg.methods.base import DrawKeys, MethodContext
from fastreg.methods.random_erasing import random_erasing
from fastreg.models import create_model
from fastreg.models.blurpool import BlurConv2d
from fastreg.models.branch import Fields, StochasticDepth
from fastreg.models.resnet import RESNETS
from fastreg.training import Config
from fastreg.training.optimizer import build_optimizer
from fastreg.training.schedule import learning_rate
from fastreg.training.train_step import TrainStep
from tests.fastreg.training.tiny_runs import ALONE, STATISTICS, advance, settings, shrink
from tests.support import peer, train_words, write_tiny_imagenet


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_have_torchvisions_state_dict(name):
    models = peer("torchvision.models")
    with torch.device("meta"):
        ours, theirs = create_model(name, 1000), models.get_model(name)
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("training", [False, True])
def test_torchvisions_weights_give_torchvisions_logits_and_gradients(name, training):
    torch.manual_seed(0)
    theirs = peer("torchvision.models").get_model(name, num_classes=10)
    for key, value in theirs.state_dict().items():  # nothing at its neutral starting value
        if "running" in key or "bn" in key:
            value.copy_(value + 0.2 * torch.rand_like(value.float()).to(value.dtype))
    ours = create_model(name, 10)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(3, 3, 64, 64)
    results = []
    for model in (ours, theirs):
        logits = model.train(training)(images)
        F.cross_entropy(logits, torch.tensor([1, 2, 3])).backward()
        results.append((logits, model.conv1.weight.grad, model.fc.weight.grad, model.layer4[0].bn1.running_var))
    for one, two in zip(*results):
        torch.testing.assert_close(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_their_models_train_by_the_command_line_and_load_again(package, tmp_path, monkeypatch):
    peer("timm" if package == "timm" else "torchvision.models")
    data = write_tiny_imagenet(tmp_path / "data", classes=2, train=4, val=2)
    words = train_words(data, tmp_path, "run", "--model", f"{package}:resnet18", "-b", "4", "--epochs", "1")
    monkeypatch.setattr("sys.argv", ["fastreg", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    rows = runs.read_rows(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "step"] == [1, 2]
    model, config = load_run(tmp_path / "run")
    assert config["model"] == f"{package}:resnet18"
    assert type(model).__module__.split(".")[0] == package
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_torchvision_of_another_torch_is_one_sentence(package, tmp_path, monkeypatch):
    (tmp_path / f"{package}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"needs a torchvision built for this torch \(RuntimeError: operator"):
        create_model(f"{package}:resnet18", 10)


def test_the_moving_average_is_timms(monkeypatch, tmp_path):
    shrink(monkeypatch, tmp_path)
    engine = TrainStep(settings("none", tmp_path, tmp_path), 4, *STATISTICS, ALONE)
    theirs = peer("timm.utils").ModelEmaV3(engine.model, decay=0.9)
    for step in range(3):
        advance(engine, range(step, step + 1))
        theirs.update(engine.model)
    for (name, value), other in zip(engine.ema.state_dict().items(), theirs.module.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", ["resnet50", "pyramidnet110"])
def test_undecayed_parameters_are_timms(name):
    with torch.device("meta"):
        model = create_model(name, 10)
    theirs = peer("timm.optim").create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=0.05)
    ours = build_optimizer(Config("imagenet", norm_weight_decay=False, weight_decay=0.05), model)

    def groups(optimizer):
        return {group["weight_decay"]: {id(p) for p in group["params"]} for group in optimizer.param_groups}

    assert groups(ours) == groups(theirs)
    assert set(groups(ours)) == {0.0, 0.05}


def test_updates_are_timms_sgd():
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    theirs = copy.deepcopy(ours)
    # theirs is Nesterov's under the name "sgd"
    own = build_optimizer(Config("imagenet", norm_weight_decay=False, weight_decay=0.05, lr=0.1), ours)
    other = peer("timm.optim").create_optimizer_v2(theirs, opt="sgd", lr=0.1, weight_decay=0.05, momentum=0.9)
    for _ in range(4):
        x, y = torch.randn(6, 5), torch.randint(3, (6,))
        for model, optimizer in ((ours, own), (theirs, other)):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_the_cosine_schedule_is_timms(warmup):
    steps, lr = 200, 0.3
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    first = round(warmup * steps)
    theirs = peer("timm.scheduler").CosineLRScheduler(
        optimizer, steps - first, warmup_t=first, warmup_lr_init=1e-4 * lr, warmup_prefix=True, t_in_epochs=False
    )
    own = Config("imagenet", lr=lr, sched="cosine", warmup=warmup)
    for step in range(steps):
        theirs.step_update(step)
        assert learning_rate(own, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_the_blur_is_timms_with_zeros_around():
    torch.manual_seed(3)
    layer = BlurConv2d(4, 6, 3, stride=2, padding=1, bias=False)
    blur = peer("timm.layers").BlurPool2d(4, stride=1, pad_mode="constant")
    x = torch.randn(2, 4, 9, 12)
    torch.testing.assert_close(layer(x), F.conv2d(blur(x), layer.weight, stride=2, padding=1))


def test_dropped_branches_are_scaled_as_timms():
    layer = StochasticDepth(Fields(1), 0, 1, last=0.7)
    x = torch.randn(200, 3)
    torch.manual_seed(0)
    theirs = peer("timm.layers").drop_path(x, 0.3, training=True)
    kept = theirs.abs().sum(1) > 0
    assert 0 < kept.sum() < 200
    layer.fields.chance = torch.where(kept, 0.69, 0.71)[:, None]
    torch.testing.assert_close(layer(x), theirs)
    torch.testing.assert_close(layer.eval()(x), x)


def test_erased_boxes_have_timms_distribution():
    """Area, shape and position of 1500 boxes each, by the Kolmogorov-Smirnov test of two samples."""
    side, count = 64, 1500
    theirs = peer("timm.data.random_erasing").RandomErasing(1.0, max_area=0.4, mode="const", device="cpu")
    random.seed(0)
    erased = theirs(torch.ones(count, 1, side, side))[:, 0] == 0
    found = [(y.min().item(), x.min().item(), len(y.unique()), len(x.unique())) for y, x in map(torch.where, erased)]
    component = random_erasing(MethodContext(size=(side, side)), prob=1.0)
    keys = DrawKeys(np.arange(count), np.zeros(1, np.int64), 0, (side, side))
    y0, x0, y1, x1 = component.draw(keys).plan["box"].T.astype(float)
    top, left, height, width = np.array(found, float).T
    pairs = {
        "area": ((y1 - y0) * (x1 - x0), height * width),
        "ratio": ((y1 - y0) / (x1 - x0), height / width),
        "top": (y0 / (side - (y1 - y0)), top / (side - height)),
        "left": (x0 / (side - (x1 - x0)), left / (side - width)),
    }
    for name, (ours, other) in pairs.items():
        assert ks_2samp(ours, other).pvalue > 1e-3, name
    assert math.isclose(pairs["area"][0].mean() / side**2, 0.21, rel_tol=0.1)
