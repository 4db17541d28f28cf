"""Color jitter against its definition, one step after the other in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fastreg.kernels import color_jitter


def case(count=4, height=16, width=20, seed=0):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))
    factors = [torch.from_numpy(rng.uniform(0.6, 1.4, count).astype(np.float32)) for _ in range(3)]
    return images, factors, torch.from_numpy(rng.normal(0, 0.1, (count, 3)).astype(np.float32))


def gray(x):
    return (x @ np.array([0.299, 0.587, 0.114]))[..., None]


STEPS = {
    "brightness": lambda x, f: f * x,
    "contrast": lambda x, f: f * x + (1 - f) * gray(x).mean(),
    "saturation": lambda x, f: f * x + (1 - f) * gray(x),
}


def one_by_one(image, factors, lighting, order):
    """float64 on the 0-1 scale; nothing clipped, nothing rounded."""
    x = image / 255.0
    for name in order:
        x = STEPS[name](x, factors[name])
    return 255 * (x + lighting)


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)), ids="-".join)
@pytest.mark.parametrize("shape", [(16, 20), (7, 9), (1, 1)])
def test_every_order_of_the_definition_gives_the_one_formula(order, shape):
    images, factors, lighting = case(4, *shape)
    result = color_jitter(images, *factors, lighting)
    assert result.dtype == torch.uint8
    for b, image in enumerate(images.numpy()):
        own = {name: float(f[b]) for name, f in zip(STEPS, factors)}
        exact = one_by_one(image, own, lighting[b].double().numpy(), order)
        assert np.abs(result[b].numpy() - exact.clip(0, 255)).max() <= 0.5 + 1e-3


def test_factors_of_one_change_nothing_and_a_new_tensor_is_returned():
    images, _, _ = case()
    one = torch.ones(4)
    result = color_jitter(images, one, one, one)
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()
    assert torch.equal(color_jitter(images, one, one, one, torch.zeros(4, 3)), images)


def test_extremes():
    images, _, _ = case()
    one, zero = torch.ones(4), torch.zeros(4)
    assert not color_jitter(images, zero, one, one).any()  # black
    flat = color_jitter(images, one, zero, one)
    assert all(len(f.unique()) == 1 for f in flat)  # the mean gray value everywhere
    colorless = color_jitter(images, one, one, zero)
    assert torch.equal(colorless[..., 0], colorless[..., 1])
    assert torch.equal(colorless[..., 0], colorless[..., 2])
    assert (color_jitter(images, one, one, one, torch.full((4, 3), 2.0)) == 255).all()
    white = torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)
    assert (color_jitter(white, *(torch.full((1,), v) for v in (1.0, 0.7, 1.3))) == 255).all()


def test_samples_are_independent_and_strides_do_not_matter():
    images, factors, lighting = case()
    whole = color_jitter(images, *factors, lighting)
    assert torch.equal(color_jitter(images[2:3], *(f[2:3] for f in factors), lighting[2:3]), whole[2:3])
    strided = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(color_jitter(strided, *factors, lighting), whole)
    assert color_jitter(images[:0], *(f[:0] for f in factors)).shape == (0, 16, 20, 3)


def test_bad_arguments_are_named():
    images, (b, c, s), lighting = case()
    with pytest.raises(TypeError, match=r"`images` is torch\.float32: give torch\.uint8"):
        color_jitter(images.float(), b, c, s)
    with pytest.raises(ValueError, match=r"`images` has shape \[4, 3, 16, 20\]: give \[B, H, W, 3\]"):
        color_jitter(images.permute(0, 3, 1, 2), b, c, s)
    with pytest.raises(ValueError, match=r"`contrast` is torch\.float32 \[3\].*give torch\.float32 \[4\]"):
        color_jitter(images, b, c[:3], s)
    with pytest.raises(ValueError, match=r"`saturation` is torch\.float64.*give torch\.float32"):
        color_jitter(images, b, c, s.double())
    with pytest.raises(ValueError, match=r"`lighting` is torch\.float32 \[4\].*give torch\.float32 \[4, 3\]"):
        color_jitter(images, b, c, s, lighting[:, 0])
