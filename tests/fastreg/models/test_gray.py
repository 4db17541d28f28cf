"""Models of gray images against the three-channel models that they are made from."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.errors import InputError
from fastreg.models import create_model
from fastreg.models.gray import gray_statistics, to_gray


def pair(name: str, **more) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The model of three channels and of one, from one random state."""
    models = []
    for channels in (3, 1):
        torch.manual_seed(3)
        models.append(create_model(name, 5, in_channels=channels, **more).eval())
    return models[0], models[1]


@pytest.mark.parametrize(("name", "more"), [("resnet18", {"stem": "cifar"}), ("pyramidnet110", {})])
def test_on_gray_images_a_gray_model_is_the_three_channel_model(name, more):
    color, gray = pair(name, **more)
    x = torch.randn(2, 1, 32, 32)
    expected = color(x.expand(-1, 3, -1, -1))
    for images in (x, x.expand(-1, 3, -1, -1)):
        torch.testing.assert_close(gray(images), expected, rtol=1e-4, atol=1e-5)
    first = next(iter(gray.state_dict()))
    assert gray.state_dict().keys() == color.state_dict().keys()
    assert gray.state_dict()[first].shape[1] == 1


def test_the_gray_value_is_pillows_and_copies_keep_it():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    theirs = torch.from_numpy(np.array(Image.fromarray(pixels).convert("L"))).double()
    assert (to_gray(x)[0, 0] - theirs).abs().max() < 0.51  # Pillow rounds
    assert torch.equal(to_gray(x[:, :1].expand(-1, 3, -1, -1)), x[:, :1])
    assert gray_statistics((0.5, 0.5, 0.5)) == pytest.approx((0.5,) * 3)
    _, gray = pair("resnet18", stem="cifar")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(copy.deepcopy(gray)(x), gray(x))
    x.requires_grad_()
    gray(x).sum().backward()
    assert x.grad.abs().sum(dim=(0, 2, 3)).min() > 0  # attacks reach every channel


def test_other_channels_are_refused():
    with pytest.raises(InputError, match="`in_channels` is 4: images have three channels"):
        create_model("resnet18", 5, in_channels=4)
    with pytest.raises(InputError, match="does not begin with a convolution of three channels"):
        create_model("cifarnet", 5, in_channels=1)
