"""WGAN-GP: the penalty's second-order gradient against finite differences, the losses and shapes by definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastreg import runs
from fastreg.errors import InputError
from fastreg.models.wgan import (
    Block,
    Critic,
    Generator,
    critic_loss,
    dequantise,
    generator_loss,
    gradient_penalty,
    load_generator,
)


def images(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 32, 32, generator=generator, dtype=torch.float64) * 2 - 1


def test_the_penaltys_gradient_agrees_with_finite_differences():
    """d penalty / d weights passes through the critic's input gradient: the second-order path."""
    torch.manual_seed(0)
    critic = Critic(width=4).double()
    real, fake, mix = images(), images(seed=1), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    gradient_penalty(critic, real, fake, mix).backward()
    step = 1e-6
    checked = 0
    for name, p in critic.named_parameters():
        if p.grad is None:  # biases reach the gradient only through which ReLUs are open
            continue
        index = p.grad.abs().argmax().item()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                p.view(-1)[index] += sign * step
            values.append(gradient_penalty(critic, real, fake, mix).item())
            with torch.no_grad():
                p.view(-1)[index] -= sign * step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(p.grad.view(-1)[index].item(), rel=1e-4), name
        checked += p.grad.view(-1)[index].item() != 0
    assert checked >= 10


def test_the_penalty_of_a_linear_critic_is_known():
    class Linear(nn.Module):
        def forward(self, x):
            return 0.1 * x.flatten(1).sum(1)

    norm = 0.1 * 3072**0.5
    penalty = gradient_penalty(Linear(), images(), images(seed=1), torch.rand(3, dtype=torch.float64))
    assert penalty.item() == pytest.approx((norm - 1) ** 2)


def test_the_penalty_is_taken_between_real_and_fake():
    class Square(nn.Module):
        def forward(self, x):
            return 0.5 * x.flatten(1).square().sum(1)  # its gradient is x itself

    real, fake, mix = images(), images(seed=1), torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    x = torch.stack([real[0], 0.75 * real[1] + 0.25 * fake[1], fake[2]])
    expected = ((x.flatten(1).norm(dim=1) - 1) ** 2).mean()
    torch.testing.assert_close(gradient_penalty(Square(), real, fake, mix), expected)


def test_losses_are_wasserstein_and_the_penalty():
    torch.manual_seed(1)
    critic = Critic(width=4).double()
    real, fake, mix = images(), images(seed=1), torch.full((3,), 0.5, dtype=torch.float64)
    expected = critic(fake).mean() - critic(real).mean() + 10 * gradient_penalty(critic, real, fake, mix)
    torch.testing.assert_close(critic_loss(critic, real, fake, mix), expected)
    torch.testing.assert_close(generator_loss(critic, fake), -critic(fake).mean())


def test_blocks_agree_with_the_published_order():
    """The paper's code puts the 1x1 shortcut after upsampling, and before pooling: the same function, slower."""
    torch.manual_seed(2)
    x = torch.randn(2, 4, 8, 8)
    down, up, first = Block(4, 4, "down"), Block(4, 4, "up"), Block(3, 5, "down", first=True)
    y = F.avg_pool2d(down.conv2(F.relu(down.conv1(F.relu(x)))), 2) + F.avg_pool2d(down.shortcut(x), 2)
    torch.testing.assert_close(down(x), y, rtol=1e-4, atol=1e-5)
    big = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    y = up.conv2(F.relu(up.conv1(F.relu(big)))) + up.shortcut(big)
    torch.testing.assert_close(up(x), y, rtol=1e-4, atol=1e-5)
    x = torch.randn(2, 3, 8, 8)
    y = F.avg_pool2d(first.conv2(F.relu(first.conv1(x))), 2) + first.shortcut(F.avg_pool2d(x, 2))
    torch.testing.assert_close(first(x), y, rtol=1e-4, atol=1e-5)


def test_shapes_ranges_and_initial_spread():
    torch.manual_seed(3)
    generator, critic = Generator(width=16), Critic(width=16)
    out = generator(torch.randn(8, 128))
    assert out.shape == (8, 3, 32, 32)
    assert out.abs().max() <= 1
    assert critic(out).shape == (8,)
    assert critic.blocks[1].conv1.weight.std().item() == pytest.approx((4 / (2 * 9 * 16)) ** 0.5, rel=0.05)
    assert critic.blocks[1].shortcut.weight.std().item() == pytest.approx((2 / (2 * 16)) ** 0.5, rel=0.15)


def test_dequantise_keeps_each_level_apart():
    images = torch.tensor([0, 127, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 2, 2, 3)
    low, high = (dequantise(images, torch.full((3, 3, 2, 2), u)) for u in (0.0, 0.999))
    torch.testing.assert_close(low[:, 0, 0, 0], torch.tensor([-1.0, -1 / 128, 127 / 128]))
    assert (low < high).all()
    assert high.max() < 1


def test_a_critic_learns_to_separate_noise_from_images():
    torch.manual_seed(4)
    critic = Critic(width=8)
    optimizer = torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.0, 0.9))
    stripes = torch.sin(torch.arange(32) / 2).expand(16, 3, 32, 32)
    losses = []
    for _ in range(15):
        loss = critic_loss(critic, stripes, torch.rand(16, 3, 32, 32) * 2 - 1, torch.rand(16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < min(losses[0], 0) - 1


def test_generators_come_back_from_their_checkpoint(tmp_path):
    torch.manual_seed(5)
    generator = Generator(latent=7, width=8)
    runs.save_checkpoint(tmp_path / "last.pt", {"generator": generator.state_dict()})
    loaded = load_generator(tmp_path)
    z = torch.randn(2, 7)
    torch.testing.assert_close(loaded(z), generator.eval()(z))
    assert (loaded.latent, loaded.training) == (7, False)
    runs.save_checkpoint(tmp_path / "other.pt", {"model": {}})
    with pytest.raises(InputError, match="has no generator"):
        load_generator(tmp_path / "other.pt")
