"""The gradient sign step and the attacks made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fastreg.kernels import fgsm_attack, fgsm_step, philox, zero_sign_share
from fastreg.kernels.attacks import input_gradient, start_in_ball

EPSILON = 8 / 255


def small_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))

    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers.to(dtype)

        def forward(self, x):
            return self.layers((x - 0.5).to(dtype))

    return Cast().eval()


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, 3, 8, 8, generator=g), torch.randint(0, 5, (n,), generator=g)


def test_step_by_the_formula():
    x, _ = batch()
    g = torch.randn(x.shape)
    g[0, 0, 0, 0] = 0
    assert torch.equal(fgsm_step(x, g, EPSILON), (x + EPSILON * g.sign()).clamp(0, 1))
    assert torch.equal(fgsm_step(x, g, EPSILON, clip=False), x + EPSILON * g.sign())
    assert fgsm_step(x, torch.full_like(x, torch.nan), EPSILON).isnan().all()
    projected = fgsm_step(x, g, EPSILON, origin=x, radius=0.01)
    assert (projected - x).abs().max() <= 0.01 + 1e-7


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_is_kept(layout):
    x, _ = batch()
    x = x.contiguous(memory_format=layout)
    out = fgsm_step(x, torch.randn(x.shape), EPSILON)
    assert out.stride() == x.stride()


def test_attack_is_one_signed_step_of_each_samples_own_gradient():
    model, (x, y) = small_model(), batch()
    pixels = x.clone().requires_grad_()
    nn.functional.cross_entropy(model(pixels), y, reduction="sum").backward()
    expected = (x + EPSILON * pixels.grad.sign()).clamp(0, 1)
    assert torch.equal(fgsm_attack(model, x, y), expected)
    assert torch.equal(fgsm_attack(model, x[2:3], y[2:3])[0], expected[2])


def test_attack_raises_the_loss_and_more_steps_raise_it_more():
    model, (x, y) = small_model(), batch(32)

    def loss(images):
        return nn.functional.cross_entropy(model(images), y).item()

    one, ten = fgsm_attack(model, x, y), fgsm_attack(model, x, y, steps=10)
    assert loss(x) < loss(one) <= loss(ten) + 1e-6
    for attacked in (one, ten):
        assert (attacked - x).abs().max() <= EPSILON + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1


def test_random_start_depends_on_the_sample_only():
    model, (x, y) = small_model(), batch()
    indices = torch.tensor([4, 2**31, 9, 0, 1, 77])
    given = {"steps": 3, "random_start": True, "seed": 5}
    whole = fgsm_attack(model, x, y, indices=indices, **given)
    assert torch.allclose(fgsm_attack(model, x[1:2], y[1:2], indices=indices[1:2], **given)[0], whole[1], atol=1e-6)
    last = fgsm_attack(model, x.contiguous(memory_format=torch.channels_last), y, indices=indices, **given)
    assert torch.allclose(last, whole, atol=1e-6)
    assert not torch.equal(fgsm_attack(model, x, y, indices=indices + 1, **given), whole)
    assert (whole - x).abs().max() <= EPSILON + 1e-6
    repeats = torch.from_numpy(philox.sample_keys(np.array([4, 4, 4, 4]), np.array([0, 1, 2, 1])))
    starts = start_in_ball(x[:1].expand(4, -1, -1, -1).contiguous(), EPSILON, 5, repeats, True)
    assert torch.equal(starts[:1], start_in_ball(x[:1], EPSILON, 5, indices[:1], True))  # occurrence 0: the index alone
    assert torch.equal(starts[1], starts[3])
    assert all(not torch.equal(starts[a], starts[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    with pytest.raises(ValueError, match="give `indices`"):
        fgsm_attack(model, x, y, random_start=True)


def test_parameters_need_no_gradient_and_get_none():
    model, (x, y) = small_model(), batch()
    first = next(model.parameters())
    first.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    fgsm_attack(model, x, y)
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())

    def broken(_):
        raise RuntimeError("no")

    model.forward = broken
    with pytest.raises(RuntimeError):
        fgsm_attack(model, x, y)
    assert [p.requires_grad for p in model.parameters()] == before


def test_half_precision_keeps_its_signs():
    """A loss this small flushes most of a float16 model's input gradient to zero; the scale keeps it."""
    model, (x, y) = small_model(), batch(32)
    half = small_model(torch.float16)
    for m in (model, half):
        m.layers[-1].weight.data[:] *= 1e-4
        m.layers[0].weight.data[:] *= 1e-2
    full = zero_sign_share(input_gradient(model, x, y))
    scaled = zero_sign_share(input_gradient(half, x, y))
    pixels = x.clone().requires_grad_()
    plain = torch.autograd.grad(nn.functional.cross_entropy(half(pixels).float(), y), pixels)[0]
    print(
        f"zero signs: float32 {full:.4f}, float16 {scaled:.4f}, float16 without the scale {zero_sign_share(plain):.4f}"
    )
    assert scaled <= full + 0.02
    assert zero_sign_share(plain) > scaled + 0.2


def test_works_inside_no_grad():
    model, (x, y) = small_model(), batch()
    with torch.no_grad():
        assert not torch.equal(fgsm_attack(model, x, y), x)


X = torch.rand(2, 3, 4, 4)
BAD = {
    "dtype": ((X.half(), X, 0.1), TypeError, "`images` is torch.float16: give torch.float32 pixels"),
    "gradient's dtype": ((X, X.int(), 0.1), TypeError, "`grad` is torch.int32"),
    "shape": ((X, X[:1], 0.1), ValueError, r"`grad` has shape \[1, 3, 4, 4\]"),
    "device": ((X, X.to("meta"), 0.1), ValueError, "on meta: give"),
    "gaps": ((X[..., ::2], X[..., ::2], 0.1), ValueError, "gaps"),
    "epsilon": ((X, X, -0.1), ValueError, "`epsilon` is -0.1: give 0 or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    arguments, error, words = BAD[name]
    with pytest.raises(error, match=words):
        fgsm_step(*arguments)


def test_no_images_are_no_images():
    assert fgsm_step(X[:0], X[:0], 0.1).shape == (0, 3, 4, 4)


def test_an_attack_names_bad_images():
    with pytest.raises(TypeError, match=r"`images` is torch\.float64: give torch\.float32"):
        fgsm_attack(lambda x: x.flatten(1), X.double(), torch.tensor([0, 1]))


def test_projection_needs_both():
    with pytest.raises(ValueError, match=r"`origin` and `radius`.*give both"):
        fgsm_step(X, X, 0.1, origin=X)
    with pytest.raises(ValueError, match="`steps` is 0: give 1 or more"):
        fgsm_attack(small_model(), *batch(), steps=0)
