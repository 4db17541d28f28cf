"""The ImageNet recipe's colors: the draws of a sample, and their application before ``augment`` in a training step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.kernels import Batch, color_jitter
from fastreg.training import Config, make_config
from fastreg.training.color_jitter import draw, make_color_jitter
from fastreg.training.train_step import TrainStep

FACTORS = ("brightness", "contrast", "saturation")
SAMPLES = np.arange(20_000) * 7


def test_factors_are_uniform_and_independent():
    drawn = draw(SAMPLES, 3, jitter=0.4, lighting=0.0, seed=1)
    assert tuple(drawn) == FACTORS
    for name in FACTORS:
        low, high = drawn[name].min(), drawn[name].max()
        assert 0.6 <= low < 0.601
        assert 1.399 < high <= 1.4
        counts = np.histogram(drawn[name], 10, (0.6, 1.4))[0]
        assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # chi-square, 9 degrees of freedom, 0.1 %
    correlation = np.corrcoef([drawn[name] for name in FACTORS])
    assert np.abs(correlation - np.eye(3)).max() < 0.03


def test_lighting_has_the_covariance_of_its_definition():
    shift = draw(SAMPLES, 0, jitter=0.4, lighting=0.1, seed=2)["lighting"].astype(np.float64)
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    expected = vectors @ np.diag((0.1 * np.array([0.2175, 0.0188, 0.0045])) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(shift.T), expected, rtol=0.05)
    assert np.abs(shift.mean(0)).max() < 5e-4


def test_draws_depend_on_seed_sample_and_epoch():
    whole = draw(SAMPLES[:8], 3, jitter=0.4, lighting=0.1, seed=1)
    few = draw(SAMPLES[[5, 2]], 3, jitter=0.4, lighting=0.1, seed=1)
    for name, value in whole.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(few[name], value[[5, 2]])
        for other in ({"seed": 2}, {"epoch": 4}):
            keys = {"epoch": 3, "seed": 1, **other}
            again = draw(SAMPLES[:8], jitter=0.4, lighting=0.1, **keys)[name]
            assert not np.isclose(again, value).any()


def test_without_jitter_and_lighting_the_bytes_go_through_untouched():
    batch = Batch(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.arange(2), torch.arange(2), None)
    assert make_color_jitter(jitter=0.0, lighting=0.0, seed=0)(batch, 0, 4) is batch


@pytest.mark.parametrize(("jitter", "lighting"), [(0.4, 0.1), (0.4, 0.0), (0.0, 0.1)])
def test_a_step_trains_on_the_jittered_bytes(jitter, lighting):
    """A step with color jitter equals a step without, on images that were jittered before."""
    images = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels, indices = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 0, 9, 2])
    drawn = draw(indices.numpy(), 2, jitter=jitter, lighting=lighting, seed=5)
    jittered = color_jitter(images, **{name: torch.from_numpy(value) for name, value in drawn.items()})
    assert not torch.equal(jittered, images)
    losses = []
    for given, own in ((images, {"color_jitter": jitter, "lighting": lighting}), (jittered, {})):
        config = Config("imagenet", model="resnet18", reg="mixup", size=16, batch_size=4, seed=5, device="cpu", **own)
        engine = TrainStep(config, 10, (0.5,) * 3, (0.25,) * 3, World(0, 1, torch.device("cpu")))
        losses.append(engine.forward_backward(Batch(given, labels, indices, None), 7, 0, 16, epoch=2).item())
    assert losses[0] == losses[1]


def test_canvases_are_cropped_before_they_are_jittered():
    """Contrast scales around the mean of the crop that Pillow cuts and resizes; pixels beyond the canvas are black."""
    images = torch.randint(0, 256, (3, 40, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, :20] //= 4  # the crops' means differ from the canvases'
    boxes = torch.tensor([[3, 5, 17, 20], [-4, 2, 32, 32], [20, 0, 20, 28]])
    batch = Batch(images, torch.arange(3), torch.tensor([7, 1, 4]), boxes.float())
    seen = make_color_jitter(jitter=0.4, lighting=0.1, seed=5)(batch, 2, 16)
    assert seen.crop is None
    cut = [
        np.asarray(Image.fromarray(image).crop((x, y, x + w, y + h)).resize((16, 16), Image.Resampling.BILINEAR))
        for image, (y, x, h, w) in zip(images.numpy(), boxes.tolist())
    ]
    drawn = draw(batch.indices.numpy(), 2, jitter=0.4, lighting=0.1, seed=5)
    crops = torch.from_numpy(np.stack(cut))
    expected = color_jitter(crops, **{name: torch.from_numpy(value) for name, value in drawn.items()})
    assert torch.equal(seen.images, expected)
    config = Config("imagenet", model="resnet18", color_jitter=0.4, lighting=0.1, size=16, batch_size=3, seed=5)
    config.device = "cpu"
    losses = []
    for given in (batch, batch._replace(images=crops, crop=None)):
        engine = TrainStep(config, 10, (0.5,) * 3, (0.25,) * 3, World(0, 1, torch.device("cpu")))
        losses.append(engine.forward_backward(given, 7, 0, 16, epoch=2).item())
    assert losses[0] == losses[1]


def test_recipes_and_flags():
    config, _ = make_config("imagenet", gpu=True, recipe="paper/imagenet/mixup")
    assert (config.color_jitter, config.lighting) == (0.4, 0.1)
    config, _ = make_config("imagenet", gpu=True, recipe="paper/imagenet/mixup", color_jitter=0.0)
    assert (config.color_jitter, config.lighting) == (0.0, 0.1)
    config, _ = make_config("cifar100", gpu=True, recipe="paper/cifar100/mixup")
    assert (config.color_jitter, config.lighting) == (0.0, 0.0)
    for field, value in (("color_jitter", 1.5), ("lighting", -0.1)):
        with pytest.raises(InputError, match=f"`{field}`"):
            make_config("imagenet", gpu=False, **{field: value})
