"""PGD's settings against plain code, AutoAttack against torchattacks, and its continuation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fastreg.errors import InputError
from fastreg.evaluation import attack_suites, evaluate
from fastreg.evaluation.attacks import AutoAttack, pgd_attack
from fastreg.kernels.attacks import fgsm_attack
from tests.fastreg.evaluation.tiny_classifier import tiny_images, tiny_net
from tests.support import peer

LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
INDICES = torch.arange(8) + 100


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 5)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def errors(model, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x).argmax(1) != LABELS


def test_the_default_is_the_papers_pgd(model, images):
    given = {"epsilon": 8 / 255, "steps": 10, "seed": 3, "indices": INDICES}
    expected = fgsm_attack(model, images, LABELS, step_size=2 / 255, random_start=True, **given)
    assert torch.equal(pgd_attack(model, images, LABELS, **given), expected)


def test_l2_steps_and_projection(model, images):
    """Against float64 steps from the same start."""
    epsilon, length = 0.5, 0.2
    start = pgd_attack(model, images, LABELS, epsilon=epsilon, steps=1, step_size=1e-30, norm="l2", indices=INDICES)
    x, net = start.double(), nn.Sequential(*model).double()
    for _ in range(3):
        x.requires_grad_()
        (grad,) = torch.autograd.grad(cross_entropy(net(x), LABELS, reduction="sum"), x)
        x = x.detach() + length * grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        moved = x - images
        norms = moved.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        x = (images + moved * torch.where(norms > epsilon, epsilon / norms, 1.0)).clamp(0, 1)
    model.float()
    found = pgd_attack(model, images, LABELS, epsilon=epsilon, steps=3, step_size=length, norm="l2", indices=INDICES)
    assert torch.allclose(found, x.float(), atol=1e-5)
    assert (found - images).flatten(1).norm(dim=1).max() <= epsilon * (1 + 1e-6)


def test_l2_starts_are_uniform_in_the_ball(model):
    flat = torch.full((400, 3, 4, 4), 0.5)
    options = {"epsilon": 0.3, "steps": 1, "step_size": 1e-30, "norm": "l2", "indices": torch.arange(400)}
    blind = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    start = pgd_attack(blind, flat, torch.zeros(400, dtype=torch.int64), **options) - flat
    radius = (start.flatten(1).norm(dim=1) / 0.3).double() ** 48  # uniform on [0, 1]
    from scipy import stats

    assert stats.kstest(radius.numpy(), "uniform").pvalue > 1e-4
    assert abs(float(start.mean())) < 5 * float(start.std()) / start.numel() ** 0.5
    alone = pgd_attack(blind, flat[7:8], torch.zeros(1, dtype=torch.int64), **options | {"indices": torch.tensor([7])})
    assert torch.allclose(alone[0] - 0.5, start[7], atol=1e-7)


def test_restarts_attack_what_is_not_yet_broken(model, images):
    weak = {"epsilon": 2 / 255, "steps": 1, "indices": INDICES}
    first = pgd_attack(model, images, LABELS, **weak)
    seen = []
    counted = lambda x: (seen.append(len(x)), model(x))[1]  # noqa: E731
    many = pgd_attack(counted, images, LABELS, restarts=4, **weak)
    broken = errors(model, first)
    assert torch.equal(many[broken], first[broken])
    assert errors(model, many).sum() >= broken.sum()
    assert seen[2] == (~broken).sum()  # the first gradient of the second start
    changed = (many != first).flatten(1).any(1)
    assert errors(model, many)[changed].all()


def test_the_target_is_the_least_likely_class(model, images):
    with torch.no_grad():
        target = model(images).argmin(1)
    x = pgd_attack(model, images, LABELS, steps=5, target="least_likely", epsilon=16 / 255, indices=INDICES)
    with torch.no_grad():
        before, after = (model(pixels).log_softmax(1).gather(1, target[:, None]) for pixels in (images, x))
    assert (after > before).all()


class Noisy(nn.Module):
    """Adds noise of its own generator to the weights of a linear model."""

    def __init__(self):
        super().__init__()
        self.weight = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
        self.generator = torch.Generator().manual_seed(1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        noise = torch.randn(self.weight.shape, generator=self.generator)
        return x.flatten(1) @ (self.weight + 3 * noise).T


def test_gradients_are_averaged_over_random_passes():
    images, labels = torch.rand(6, 3, 4, 4), LABELS[:6]
    model = Noisy()
    pgd_attack(model, images, labels, steps=2, samples=7, indices=INDICES[:6])
    assert model.calls == 14
    signs = []
    for samples in (1, 200):
        model = Noisy()
        given = {"epsilon": 1.0, "steps": 1, "step_size": 1e-3, "samples": samples, "clip": False}
        start = pgd_attack(model, images, labels, indices=INDICES[:6], **given | {"step_size": 1e-30})
        moved = pgd_attack(Noisy(), images, labels, indices=INDICES[:6], **given) - start
        clean = Noisy()
        x = start.clone().requires_grad_()
        (exact,) = torch.autograd.grad(cross_entropy(x.flatten(1) @ clean.weight.T, labels, reduction="sum"), x)
        signs.append(float((moved.sign() == exact.sign()).float().mean()))
    assert signs[1] > signs[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "l1"}, "`norm` is 'l1': give linf or l2"),
        ({"target": "random"}, "`target` is 'random': give least_likely"),
        ({"restarts": 0}, "`restarts` is 0: give 1 or more"),
        ({"step_size": -1.0}, "`step_size` is -1: give a number above 0"),
    ],
)
def test_wrong_settings(model, images, options, words):
    with pytest.raises(InputError, match=words):
        pgd_attack(model, images, LABELS, indices=INDICES, **options)


def test_the_card_names_the_settings(net, data):
    card = evaluate(net, "pgd", data, attack_steps=3, attack_restarts=2, attack_norm="l2", epsilon=2.0)
    settings = card.suite_settings("pgd")
    assert settings == {"epsilon": 2.0, "clip": True, "steps": 3, "norm": "l2", "restarts": 2}
    altered = attack_suites.altered(card, "pgd")
    assert altered == ["epsilon 2 instead of 8/255", "3 steps instead of 10", "norm l2", "2 random starts"]
    assert evaluate(net, "pgd", data).suite_settings("pgd") == {"epsilon": 8 / 255, "clip": True, "steps": 10}


def test_an_attack_that_finds_less_than_one_step_is_noted(net, data):
    card = evaluate(net, "fgsm,pgd", data)
    assert attack_suites.notes(card, "pgd", "fgsm") == []
    card.results("pgd")["pgd"]["error"] = card.results("fgsm")["fgsm"]["error"] - 5
    assert "masked gradients" in attack_suites.notes(card, "pgd", "fgsm")[0]


class Recorder:
    """An attack of torchattacks' interface that moves every pixel by ``shift``."""

    def __init__(self, shift: float):
        self.shift, self.seen = shift, []

    def __call__(self, images, labels):
        self.seen.append(len(images))
        return (images + self.shift).clamp(0, 1)


@pytest.fixture
def quick(monkeypatch):
    """AutoAttack with four attacks that take no time; the last raises if asked to."""
    peer("torchattacks")
    made = []

    class Quick(AutoAttack):
        def __init__(self, module, classes, **given):
            super().__init__(module, classes, **given)
            self.attacks = tuple(Recorder(shift) for shift in (0.05, -0.1, 0.3, -0.6))
            made.append(self)

    monkeypatch.setattr(attack_suites, "AutoAttack", Quick)
    return made


def test_each_attack_gets_what_is_left(quick):
    net = tiny_net()
    card = evaluate(net, "clean,autoattack", tiny_images(), batch_size=1000)
    (attack,) = quick
    row = card.results("autoattack")["autoattack"]
    n, wrong = row["n"], round(card.results("clean")["clean"]["error"] * row["n"] / 100)
    left = n - wrong
    for recorder, name in zip(attack.attacks, AutoAttack.NAMES):
        assert recorder.seen == [left]
        left -= row.get(f"broken_{name}", 0)
    assert row["error"] == pytest.approx(100 * (n - left) / n)
    if row.get("broken_square"):
        assert "uses no gradient" in attack_suites.notes(card, "autoattack")[0]


def test_an_interrupted_autoattack_continues(quick, tmp_path, monkeypatch):
    net, data = tiny_net(), tiny_images()
    whole = evaluate(net, "autoattack", data, batch_size=8).results("autoattack")["autoattack"]
    calls, keep = [], attack_suites._AutoAttackRun._keep

    def stop_after_two(self, *args):
        keep(self, *args)
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(attack_suites._AutoAttackRun, "_keep", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, "autoattack", data, batch_size=8, out=tmp_path)
    files = sorted(tmp_path.glob("autoattack/*/*.npz"))
    assert len(files) == 2
    files[1].write_bytes(files[1].read_bytes()[:100])  # cut short
    monkeypatch.setattr(attack_suites._AutoAttackRun, "_keep", keep)
    row = evaluate(net, "autoattack", data, batch_size=5, out=tmp_path).results("autoattack")["autoattack"]
    seconds = ("seconds",)
    assert {k: v for k, v in row.items() if k not in seconds} == {k: v for k, v in whole.items() if k not in seconds}
    assert sum(quick[-1].attacks[0].seen) < sum(quick[0].attacks[0].seen)
    assert not (tmp_path / "autoattack").exists()


def test_autoattacks_settings_are_the_authors(model):
    peer("torchattacks")
    attack = AutoAttack(model, 1000, epsilon=4 / 255)
    apgd, apgdt, fab, square = attack.attacks
    assert (apgd.steps, apgdt.steps, fab.steps, square.n_queries) == (100, 100, 100, 5000)
    assert (apgdt.n_target_classes, fab.n_target_classes) == (9, 9)
    assert [a.n_restarts for a in attack.attacks] == [1, 1, 1, 1]
    with pytest.raises(InputError, match="4 or more classes"):
        AutoAttack(model, 3, epsilon=4 / 255)


@pytest.mark.slow
def test_autoattack_breaks_what_pgd_breaks(model, images):
    peer("torchattacks")
    state = torch.get_rng_state()
    attack = AutoAttack(model, 5, epsilon=8 / 255)
    x = attack(images, LABELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert (x - images).abs().max() <= 8 / 255 + 1e-6
    pgd = pgd_attack(model, images, LABELS, steps=40, indices=INDICES)
    assert errors(model, x).sum() >= errors(model, pgd).sum()
    assert np.isfinite(x.numpy()).all()
