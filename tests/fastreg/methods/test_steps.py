"""Methods that change the training step, against plain versions on a small network with batch norm."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastreg import methods
from fastreg.errors import InputError
from fastreg.kernels import Targets, mixed_cross_entropy, philox
from fastreg.methods.ood import uniform_divergence
from fastreg.models import Normalized, create_model, set_fields

EPSILON = 8 / 255


def network(seed=0):
    torch.manual_seed(seed)
    inner = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.0), nn.Flatten(), nn.Linear(6 * 64, 5)
    )
    model = Normalized(inner, (0.5,) * 3, (0.25,) * 3)
    with torch.no_grad():  # running statistics that differ from a batch's
        inner[1].running_mean += 0.3
        inner[1].running_var *= 2
    return model.train()


def batch(count=7):
    rng = np.random.default_rng(1)
    images = torch.from_numpy(rng.random((count, 3, 8, 8), dtype=np.float32))
    labels = torch.from_numpy(rng.integers(0, 5, count))
    return images, Targets(labels, labels, torch.ones(count)), torch.from_numpy(rng.permutation(100)[:count])


def smoothed(logits, targets):
    return mixed_cross_entropy(logits, targets, label_smoothing=0.1)


def plain_fgsm(model, images, labels):
    """x + epsilon sign(grad), clipped; the model in evaluation mode, no smoothing."""
    reference = copy.deepcopy(model).eval()
    x = images.clone().requires_grad_()
    F.cross_entropy(reference(x), labels).backward()
    return (images + EPSILON * x.grad.sign()).clamp(0, 1)


def assert_same_training(model, plain, loss, expected):
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for (name, p), q in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, p), q in zip(model.named_buffers(), plain.buffers()):
        torch.testing.assert_close(p, q, msg=name)  # the attack moved no running statistics
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_adversarial_training_agrees_with_a_plain_version():
    model, (images, targets, _) = network(), batch()
    plain = copy.deepcopy(model)
    method = methods.create("adversarial", dataset="cifar100", size=8)
    assert (method.pixels, method.optimizer) == (True, "adam")
    loss = method.step(model, images, targets, smoothed)
    half = len(images) // 2
    mixed = torch.cat((images[:half], plain_fgsm(plain, images, targets.a)[half:]))
    assert_same_training(model, plain, loss, F.cross_entropy(plain(mixed), targets.a, label_smoothing=0.1))


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_logit_pairing_agrees_with_a_plain_version(weight):
    model, (images, targets, _) = network(), batch()
    plain = copy.deepcopy(model)
    loss = methods.create("alp", weight=weight).step(model, images, targets, smoothed)
    logits = plain(torch.cat((images, plain_fgsm(plain, images, targets.a))))
    ce = F.cross_entropy(logits, targets.a.repeat(2), label_smoothing=0.1)
    pairing = ((logits[:7] - logits[7:]) ** 2).sum() / (7 * 5)
    assert pairing > 1e-5
    assert_same_training(model, plain, loss, ce + weight * pairing)


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_ood_augmentation_agrees_with_a_plain_version(weight):
    model, (images, targets, indices) = network(), batch()
    plain = copy.deepcopy(model)
    pool = np.random.default_rng(2).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    method = methods.create("ood_svhn", ood=pool, weight=weight, seed=4)
    loss = method.step(model, images, targets, smoothed, indices=indices, step=3)
    choice = philox.integers(philox.words(4, 0, indices.numpy(), 3, "ood_choice")[:, 0], 50)
    outside = torch.from_numpy(pool[choice]).permute(0, 3, 1, 2) / 255
    logits = plain(torch.cat((images, outside)))
    log_p = logits[7:].log_softmax(1)
    uniform = torch.full_like(log_p, 1 / 5)
    kl = F.kl_div(log_p, uniform, reduction="batchmean")  # sum of U (log U - log p), over the batch
    assert kl > 0
    expected = F.cross_entropy(logits[:7], targets.a, label_smoothing=0.1) + weight * kl
    assert_same_training(model, plain, loss, expected)


def test_the_divergence_is_zero_for_uniform_probabilities():
    assert abs(uniform_divergence(torch.full((3, 7), 2.5)).item()) < 1e-6
    logits = torch.tensor([[10.0, 0.0]])
    expected = -0.5 * logits.log_softmax(1).sum().item() - math.log(2)
    assert uniform_divergence(logits).item() == pytest.approx(expected, rel=1e-5)


def capture(seen):
    """A model that records its inputs."""

    class Keep(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean((2, 3))

    return Keep()


def test_ood_images_depend_on_the_sample_and_are_resized():
    pool = np.random.default_rng(2).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    method = methods.create("ood_svhn", ood=torch.from_numpy(pool))
    images, indices = torch.rand(6, 3, 20, 16), torch.tensor([5, 9, 1, 70, 3, 4])
    seen = []

    def run(rows, **keys):
        label = torch.zeros(len(rows), dtype=torch.int64)
        hard = Targets(label, label, torch.ones(len(rows)))
        method.step(capture(seen), images[rows], hard, smoothed, indices=indices[rows], **keys)
        return seen[-1][len(rows) :]

    whole = run([0, 1, 2, 3, 4, 5], step=8, epoch=2)
    assert whole.shape == (6, 3, 20, 16)
    torch.testing.assert_close(run([4, 2], step=11, epoch=2), whole[[4, 2]])
    assert not torch.equal(run([0, 1, 2, 3, 4, 5], step=8, epoch=3), whole)


def test_ood_gan_draws_latents_by_sample_and_maps_to_pixels():
    class Generator(nn.Module):
        latent = 12

        def forward(self, z):
            return z.view(-1, 3, 2, 2).tanh()

    method = methods.create("ood_gan", ood=Generator(), seed=6)
    images, targets, indices = batch(5)
    seen = []
    method.step(capture(seen), images[:, :, :2, :2], targets, lambda z, t: z.sum(), indices=indices, step=1)
    z = np.stack([philox.field(philox.normal, 6, [i], 12, 1, "gan_latent")[0] for i in indices.tolist()])
    torch.testing.assert_close(seen[0][5:], torch.from_numpy(np.tanh(z).reshape(5, 3, 2, 2) / 2 + 0.5))
    assert (seen[0] >= 0).all()
    assert (seen[0] <= 1).all()


def test_ood_without_keys_depends_on_the_position_and_the_call():
    """With the four required arguments only, the first two calls are steps 0 and 1 of samples 0 to 4."""
    pool = np.random.default_rng(2).integers(0, 256, (500, 8, 8, 3), dtype=np.uint8)
    images, targets, _ = batch(5)
    bare, keyed = [], []
    method = methods.create("ood_svhn", ood=pool, seed=3)
    for step in range(2):
        keys = {"indices": torch.arange(5), "step": step}
        method.step(capture(bare), images, targets, lambda z, t: z.sum())
        methods.create("ood_svhn", ood=pool, seed=3).step(capture(keyed), images, targets, lambda z, t: z.sum(), **keys)
    assert all(torch.equal(one, two) for one, two in zip(bare, keyed))
    assert not torch.equal(bare[0], bare[1])


def test_ood_needs_its_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, targets, indices = batch()
    pool = np.zeros((2, 8, 8, 3), np.uint8)
    method = methods.create("ood_svhn", ood=pool[..., 0])
    with pytest.raises(InputError, match=r"uint8 \[N, h, w, 3\]"):
        method.step(network(), images, targets, smoothed, indices=indices, step=0)
    with pytest.raises(InputError, match="fastreg train gan"):
        methods.create("ood_gan").step(network(), images, targets, smoothed, indices=indices, step=0)


@pytest.mark.parametrize("name", ["adversarial", "alp"])
def test_attacks_join_mixing_and_shakedrop(name):
    """The attack gets the pairs of labels, and a doubled batch repeats each sample's branch numbers."""
    method = methods.create(f"mixup+{name}+shakedrop", dataset="cifar10", size=8)
    torch.manual_seed(0)
    model = create_model("resnet18", 5, stem="cifar", **method.model)
    images, targets, indices = batch(6)
    plan, targets = method.draw(targets.a, indices, 0)
    assert plan.partner is not None
    set_fields(model, method.fields(indices, 0, layers=8))
    loss = method.step(Normalized(model, (0.5,) * 3, (0.25,) * 3), images, targets, smoothed)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["adversarial", "alp", "ood_svhn"])
def test_steps_run_under_autocast(name):
    images, targets, indices = batch()
    pool = {"ood": np.zeros((2, 8, 8, 3), np.uint8)} if name == "ood_svhn" else {}
    losses = []
    for enabled in (False, True):
        model = network()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = methods.create(name, **pool).step(model, images, targets, smoothed, indices=indices, step=0)
        loss.backward()
        losses.append(loss.item())
        assert loss.dtype == torch.float32
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_one_sample_is_enough():
    images, targets, _ = batch(1)
    for name in ("adversarial", "alp"):
        model = network()
        loss = methods.create(name).step(model, images, targets, smoothed)
        assert torch.isfinite(loss)


def test_the_attributes_of_a_method_for_a_trainer():
    assert methods.create("shakedrop+cutmix").model == {"shakedrop": True}
    assert methods.create("stochastic_depth", rate=0.2).model == {"stochastic_depth": 0.2}
    assert methods.create("mixup").step is None
    assert methods.create("mixup").fields is None
    assert not methods.create("mixup").pixels
    for name in methods.METHODS:
        assert methods.create(name).name == name


def test_shakedrop_fields_depend_on_step_layer_and_sample():
    method = methods.create("shakedrop", dataset="cifar100", seed=1)
    indices = torch.tensor([4, 8, 15, 16])
    whole = method.fields(indices, 5)
    assert {k: tuple(v.shape) for k, v in whole.items()} == {"gate": (66,), "alpha": (4, 66), "beta": (4, 66)}
    tail = method.fields(indices[2:], 5)
    assert torch.equal(tail["gate"], whole["gate"])
    assert torch.equal(tail["alpha"], whole["alpha"][2:])
    assert torch.equal(tail["beta"], whole["beta"][2:])
    other = method.fields(indices, 6)
    assert all(not torch.equal(other[key], whole[key]) for key in whole)
    assert not torch.equal(whole["alpha"], 2 * whole["beta"] - 1)
    many = method.fields(torch.arange(3000), 0, layers=4)
    assert abs(many["alpha"].mean()) < 0.02
    assert -1 <= many["alpha"].min() < -0.99
    assert 0.99 < many["alpha"].max() < 1
    assert abs(many["beta"].mean() - 0.5) < 0.01
    gates = torch.stack([method.fields(indices[:1], step, layers=4)["gate"] for step in range(800)])
    torch.testing.assert_close(gates.mean(0), torch.tensor([0.875, 0.75, 0.625, 0.5]), rtol=0, atol=0.05)


def test_ood_svhn_finds_svhn_in_its_default_folder(tmp_path, monkeypatch):
    from scipy.io import savemat

    monkeypatch.setenv("FASTREG_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    images, targets, indices = batch()
    keys = {"indices": indices, "step": 0}
    with pytest.raises(InputError, match="svhn"):
        methods.create("ood_svhn").step(network(), images, targets, smoothed, **keys)
    pool = np.random.default_rng(3).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    (tmp_path / "svhn").mkdir()
    savemat(tmp_path / "svhn" / "train_32x32.mat", {"X": pool.transpose(1, 2, 3, 0), "y": np.full((9, 1), 10)})
    found, given = [], []
    for seen, ood in ((found, None), (given, pool)):
        model = capture(seen)
        methods.create("ood_svhn", ood=ood).step(model, images, targets, lambda z, t: z.sum(), **keys)
    assert torch.equal(found[0], given[0])


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_two_passes_normalize_each_batch_by_itself(weight):
    """Lee et al.'s code calls the model on the training images, then on the others."""
    model, (images, targets, indices) = network(), batch()
    pool = np.random.default_rng(3).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    plain = copy.deepcopy(model)
    method = methods.create("ood_svhn", dataset="cifar100", size=8, seed=9, ood=pool, weight=weight, passes=2)
    loss = method.step(model, images, targets, smoothed, indices=indices, step=2)
    words = philox.words(9, 0, indices.numpy(), 2, "ood_choice")[:, 0]
    chosen = torch.from_numpy(pool[philox.integers(words, len(pool))]).permute(0, 3, 1, 2).float() / 255
    inside, outside = plain(images), plain(chosen)
    divergence = -(outside.log_softmax(1).mean(1) + math.log(5)).mean()
    expected = F.cross_entropy(inside, targets.a, label_smoothing=0.1) + weight * divergence
    assert_same_training(model, plain, loss, expected)
    with pytest.raises(InputError, match="`passes` is 3: give 1"):
        methods.create("ood_svhn", passes=3)


def test_the_joint_gan_is_trained_by_lee_et_al_s_losses_with_a_gradient_penalty():
    """Critic, generator and classifier in turn, written out with the same random numbers."""
    model, (images, targets, indices) = network(), batch()
    images = F.interpolate(images, (32, 32)).contiguous()
    model.model = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 64, 5))
    plain = copy.deepcopy(model)
    own = {"joint": True, "width": 4, "weight": 0.1, "passes": 2}
    method = methods.create("ood_gan", dataset="cifar100", seed=4, **own)
    method.networks.start(torch.device("cpu"))
    generator, critic = (copy.deepcopy(n) for n in (method.networks.generator, method.networks.critic))
    torch.manual_seed(11)
    loss = method.step(model, images, targets, smoothed, indices=indices, step=0)

    torch.manual_seed(11)
    adam = [torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.0, 0.9)) for n in (generator, critic)]
    count = len(images)
    for _ in range(5):
        real = 2 * (255 * images + torch.rand(count, 3, 32, 32)) / 256 - 1
        fake = generator(torch.randn(count, 128)).detach()
        mix = torch.rand(count).view(-1, 1, 1, 1)
        between = (real + mix * (fake - real)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        adam[1].zero_grad()
        (critic(fake).mean() - critic(real).mean() + 10 * penalty).backward()
        adam[1].step()
    fake = generator(torch.randn(count, 128))
    confident = plain((fake + 1) / 2).log_softmax(1)
    uniform = torch.full((count, 5), 1 / 5)
    adam[0].zero_grad()
    (-critic(fake).mean() + 0.1 * F.kl_div(confident, uniform, reduction="batchmean")).backward()
    adam[0].step()
    plain.zero_grad()
    with torch.no_grad():
        fake = (generator(torch.randn(count, 128)) + 1) / 2
    expected = F.cross_entropy(plain(images), targets.a, label_smoothing=0.1)
    expected = expected + 0.1 * F.kl_div(plain(fake).log_softmax(1), uniform, reduction="batchmean")
    for one, other in ((generator, method.networks.generator), (critic, method.networks.critic)):
        for (name, p), q in zip(one.named_parameters(), other.parameters()):
            # before a batch norm, and for the critic's last layer, a bias has no gradient but rounding, which Adam
            # scales to steps of 2e-4: at most five, in opposite directions
            noise = name == "output.bias" or (one is generator and name.endswith("bias"))
            torch.testing.assert_close(p, q, rtol=1e-4, atol=2.1e-3 if noise else 2e-5, msg=name)
    assert all(p.grad is None for p in model.parameters())  # the GAN's losses leave the classifier alone
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    loss.backward()
    expected.backward()
    for (name, p), q in zip(model.named_parameters(), plain.named_parameters()):
        torch.testing.assert_close(p.grad, q[1].grad, rtol=2e-3, atol=1e-4, msg=name)
    with pytest.raises(InputError, match="`ood` is runs/gan, but with `joint`"):
        methods.create("ood_gan", joint=True, ood="runs/gan")
