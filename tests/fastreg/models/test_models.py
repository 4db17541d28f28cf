"""Models: names, shapes and counts by the published rule, forward passes against plain versions, clear errors."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastreg.errors import InputError
from fastreg.models import MODELS, Normalized, create_model, import_package
from fastreg.models.blurpool import BlurConv2d

PARAMETERS = {
    ("resnet18", 1000): 11_689_512,
    ("resnet34", 1000): 21_797_672,
    ("resnet50", 1000): 25_557_032,
    ("resnet101", 1000): 44_549_160,
    ("resnet152", 1000): 60_192_808,
    ("pyramidnet200", 100): 26_844_952,
    ("pyramidnet200", 10): 26_752_702,
}


@pytest.mark.parametrize(("name", "classes"), PARAMETERS)
def test_parameter_counts_are_the_published_ones(name, classes):
    with torch.device("meta"):
        model = create_model(name, classes)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name, classes]


def torchvision_shapes(depths, bottleneck, classes=1000):
    """torchvision's state dict by its naming rule: {name: shape}, in order."""
    shapes = {}

    def norm(name, width):
        for field in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{field}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (64, 3, 7, 7)
    norm("bn1", 64)
    before = 64
    for stage, depth in enumerate(depths):
        planes = 64 * 2**stage
        after = planes * (4 if bottleneck else 1)
        for block in range(depth):
            stem = f"layer{stage + 1}.{block}"
            plan = [(planes, before, 1), (planes, planes, 3), (after, planes, 1)]
            for i, (out, into, kernel) in enumerate(plan if bottleneck else [(planes, before, 3), (planes, planes, 3)]):
                shapes[f"{stem}.conv{i + 1}.weight"] = (out, into, kernel, kernel)
                norm(f"{stem}.bn{i + 1}", out)
            if block == 0 and before != after:
                shapes[f"{stem}.downsample.0.weight"] = (after, before, 1, 1)
                norm(f"{stem}.downsample.1", after)
            before = after
    shapes["fc.weight"], shapes["fc.bias"] = (classes, before), (classes,)
    return shapes


@pytest.mark.parametrize(
    ("name", "depths", "bottleneck"),
    [("resnet18", (2, 2, 2, 2), False), ("resnet34", (3, 4, 6, 3), False), ("resnet50", (3, 4, 6, 3), True)],
)
def test_resnet_state_dict_has_torchvisions_names(name, depths, bottleneck):
    with torch.device("meta"):
        state = create_model(name, 1000).state_dict()
        dropping = create_model(name, 1000, shakedrop=True).state_dict()
    expected = torchvision_shapes(depths, bottleneck)
    assert [(key, tuple(value.shape)) for key, value in state.items()] == list(expected.items())
    assert list(dropping) == list(state)


def test_resnet50_puts_the_stride_on_the_3x3_convolution():
    model = create_model("resnet50", 10)
    for stage in (model.layer2, model.layer3, model.layer4):
        assert (stage[0].conv1.stride, stage[0].conv2.stride, stage[0].downsample[0].stride) == ((1, 1), (2, 2), (2, 2))
    assert model.layer1[0].conv2.stride == (1, 1)


def test_resnet_starts_from_torchvisions_distribution():
    torch.manual_seed(0)
    model = create_model("resnet18", 10)
    weight = model.layer3[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert model.layer1[0].bn2.weight.eq(1).all()
    zeroed = create_model("resnet50", 10, zero_init_residual=True)
    assert zeroed.layer1[0].bn3.weight.eq(0).all()
    assert zeroed.layer1[0].bn2.weight.eq(1).all()


def plain_basic_resnet(model, x):
    """ResNet-18's forward pass in functions, from its state dict alone (evaluation mode)."""
    w = model.state_dict()

    def norm(x, name):
        fields = (w[f"{name}.{f}"] for f in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *fields)

    if w["conv1.weight"].shape[-1] == 7:
        x = F.max_pool2d(F.relu(norm(F.conv2d(x, w["conv1.weight"], stride=2, padding=3), "bn1")), 3, 2, 1)
    else:
        x = F.relu(norm(F.conv2d(x, w["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
            y = norm(F.conv2d(y, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in w:
                x = norm(F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), w["fc.weight"], w["fc.bias"])


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 64), ("cifar", 32)])
def test_resnet18_agrees_with_a_plain_version(stem, size):
    torch.manual_seed(1)
    model = create_model("resnet18", 7, stem=stem)
    x = torch.randn(2, 3, size, size)
    model(x)  # moves the running statistics off 0 and 1
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain_basic_resnet(model, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "widths"), [("pyramidnet200", (20, 23, 27, 249, 252, 256)), ("pyramidnet110", None)])
def test_pyramidnet_grows_linearly(name, widths):
    with torch.device("meta"):
        model = create_model(name, 100)
    blocks = [*model.layer1, *model.layer2, *model.layer3]
    planes = [block.conv1.weight.shape[0] for block in blocks]
    if widths:
        assert (*planes[:3], *planes[-3:]) == widths
        assert (len(blocks), model.fc.in_features) == (66, 1024)
    else:
        assert planes == [16 + 5 * i for i in range(1, 55)]
        assert model.fc.in_features == 286
    third = len(blocks) // 3
    assert [i for i, block in enumerate(blocks) if block.downsample is not None] == [third, 2 * third]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["pyramidnet200", "pyramidnet110"])
def test_pyramid_block_agrees_with_its_definition(name, layout):
    torch.manual_seed(2)
    block = create_model(name, 10).layer2[0].train()
    x = torch.randn(3, block.bn1.num_features, 7, 7).to(memory_format=layout)  # an odd side: pooling rounds up
    y = block.conv1(block.bn1(x))
    y = block.conv2(F.relu(block.bn2(y)))
    y = block.bn3(y) if name == "pyramidnet110" else block.bn4(block.conv3(F.relu(block.bn3(y))))
    shortcut = F.avg_pool2d(x, 2, 2, ceil_mode=True)
    empty = torch.zeros(3, y.shape[1] - x.shape[1], *shortcut.shape[2:])
    out = block(x)
    assert out.is_contiguous(memory_format=layout)
    torch.testing.assert_close(out, y + torch.cat((shortcut, empty), 1))


def test_pyramidnet_gives_logits_at_every_size():
    model = create_model("pyramidnet110", 12).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 12)
        assert model(torch.zeros(1, 3, 17, 24)).shape == (1, 12)


def test_blurpool_filters_before_the_strided_convolution_and_keeps_the_names():
    torch.manual_seed(3)
    layer = BlurConv2d(2, 4, 3, stride=2, padding=1, bias=False)
    x = torch.randn(1, 2, 9, 9)
    binomial = torch.tensor(np.outer([1, 2, 1], [1, 2, 1]) / 16, dtype=torch.float32)
    blurred = F.conv2d(x.transpose(0, 1), binomial[None, None], padding=1).transpose(0, 1)
    torch.testing.assert_close(layer(x), F.conv2d(blurred, layer.weight, stride=2, padding=1))
    with torch.device("meta"):
        plain, blurry = create_model("resnet50", 10), create_model("resnet50", 10, blurpool=True)
    assert list(plain.state_dict()) == list(blurry.state_dict())
    assert sum(isinstance(m, BlurConv2d) for m in blurry.modules()) == 6


def test_normalized_takes_pixels():
    inner = nn.Conv2d(3, 2, 1)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    x = torch.rand(2, 3, 4, 5)
    plain = inner((x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    model = Normalized(inner, mean, std)
    torch.testing.assert_close(model(x), plain)
    assert list(model.state_dict()) == ["model.weight", "model.bias"]


def test_models_repeat_from_the_seed():
    torch.manual_seed(4)
    one = create_model("resnet18", 5)
    torch.manual_seed(4)
    two = create_model("resnet18", 5)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    assert not torch.equal(copy.deepcopy(one).conv1.weight, create_model("resnet18", 5).conv1.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet51", 10), "did you mean 'resnet50'"),
        (("", 10), "known are resnet18"),
        (("resnet18", 0), "num_classes"),
        (("resnet18", 10, False, "stone"), "unknown `stem`"),
        (("timm:resnet18", 10, True), "ShakeDrop works on"),
    ],
)
def test_bad_names_are_input_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        create_model(*arguments)


def test_bad_arguments_are_input_errors():
    with pytest.raises(InputError, match="does not take"):
        create_model("pyramidnet110", 10, blurpool=True)
    with pytest.raises(InputError, match="choose one"):
        create_model("resnet18", 10, shakedrop=True, stochastic_depth=0.1)
    for name in ("timm:resnet18", "torchvision:resnet18", "cifarnet"):
        with pytest.raises(InputError, match=r"stochastic depth works on resnet18, .*: leave it out"):
            create_model(name, 10, stochastic_depth=0.1)
    with pytest.raises(InputError, match=r"`stochastic_depth` is 1\.0: give"):
        create_model("resnet18", 10, stochastic_depth=1.0)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_missing_package_names_the_line_that_installs_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match="pip install"):
        create_model(f"{package}:resnet18", 10)
    with pytest.raises(InputError, match=rf"model mine needs {package}, which is not installed: pip install it"):
        import_package(package, "model mine", "pip install it")


def test_known_names():
    assert set(PARAMETERS) <= {(name, k) for name in MODELS for k in (10, 100, 1000)}
