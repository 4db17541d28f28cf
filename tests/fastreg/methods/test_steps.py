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


def test_the_divergence_is_zero_on_uniform_belief():
    assert abs(uniform_divergence(torch.full((3, 7), 2.5)).item()) < 1e-6
    logits = torch.tensor([[10.0, 0.0]])
    expected = -0.5 * logits.log_softmax(1).sum().item() - math.log(2)
    assert uniform_divergence(logits).item() == pytest.approx(expected, rel=1e-5)


def capture(seen):
    """A model that keeps what it was given."""

    class Keep(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean((2, 3))

    return Keep()


def test_ood_images_belong_to_the_sample_and_are_resized():
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


def test_ood_without_keys_belongs_to_the_place_and_the_call():
    """The contract's four arguments alone: the first two calls are steps 0 and 1 of samples 0 to 4."""
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
    """Pairs of labels travel into the attack, and a doubled batch repeats each sample's branch numbers."""
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


def test_what_a_trainer_reads_off_a_method():
    assert methods.create("shakedrop+cutmix").model == {"shakedrop": True}
    assert methods.create("stochastic_depth", rate=0.2).model == {"stochastic_depth": 0.2}
    assert methods.create("mixup").step is None
    assert methods.create("mixup").fields is None
    assert not methods.create("mixup").pixels
    for name in methods.METHODS:
        assert methods.create(name).name == name


def test_shakedrop_fields_belong_to_step_layer_and_sample():
    method = methods.create("shakedrop", dataset="cifar100", seed=1)
    indices = torch.tensor([4, 8, 15, 16])
    whole = method.fields(indices, 5)
    assert {k: tuple(v.shape) for k, v in whole.items()} == {"gate": (66,), "alpha": (4, 66), "beta": (4, 66)}
    part = method.fields(indices[2:], 5)
    assert torch.equal(part["gate"], whole["gate"])
    assert torch.equal(part["alpha"], whole["alpha"][2:])
    assert torch.equal(part["beta"], whole["beta"][2:])
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


def test_ood_svhn_finds_svhn_in_its_usual_place(tmp_path, monkeypatch):
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
