"""The attack suites: refused settings, the store of AutoAttack, and models that mask their gradients on purpose."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.evaluation import attack_suites, evaluate
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.pixel_cache import from_arrays
from tests.fastreg.evaluation.test_probe import Changed
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images, tiny_net
from tests.support import peer

WHERE = "autoattack is not installed (pip install git+https://github.com/fra31/auto-attack)"


def test_pgd_of_one_step_starts_at_random_and_is_marked(net, data, monkeypatch):
    monkeypatch.setattr(attack_suites._PGD, "tried", True)
    one = evaluate(net, "pgd", data, attack_steps=1, seed=1)
    assert "1 steps instead of 10" in one.altered("pgd")
    assert not torch.equal(_attacked(net, data, "pgd", 1), _attacked(net, data, "pgd", 2))
    assert torch.equal(_attacked(net, data, "fgsm", 1), _attacked(net, data, "fgsm", 2))
    assert "steps instead" not in evaluate(net, "fgsm", data).altered("fgsm")


def _attacked(net, data, suite, seed):
    """The model's last input, which is the attacked batch."""
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            seen.append(x.detach().clone())
            return self.net(x)

    evaluate(Spy().eval(), suite, data, attack_steps=1, seed=seed)
    return seen[-1]


@pytest.mark.parametrize(
    ("suite", "options", "words"),
    [
        ("fgsm", {"attack_norm": "l2", "epsilon": 2.0}, "but fgsm moves each pixel by it: leave the suite fgsm out"),
        ("pgd", {"epsilon": 2.0}, "`epsilon` is 2, but pixels are in"),
        ("autoattack", {"clip": False}, "autoattack always keeps pixels in .0, 1.: leave out `clip`"),
    ],
)
def test_settings_that_an_attack_cannot_have_are_refused(net, data, suite, options, words):
    if suite == "autoattack":
        peer("torchattacks")
    with pytest.raises(InputError, match=words):
        evaluate(net, suite, data, **options)


class Store:
    """A store of two batches in ``root``; ``used`` counts the images that were attacked in this run."""

    def __init__(self, root, net, data, *, settings=None, seed=0, described=None, mean=MEAN, columns=None, **given):
        self.classifier = Classifier(net, mean=mean, std=STD, device=torch.device("cpu"), precision="fp32", **given)
        self.classifier.module.select(columns)
        settings = {"epsilon": 8 / 255, "norm": "linf", "version": "standard", **(settings or {})}
        self.run = attack_suites._AutoAttackRun(settings, seed, root, described or {"fingerprint": "x"})
        self.batches = list(from_arrays(*data, World(0, 1, torch.device("cpu"))).batches(4))

    def attack(self):
        used = []

        class Quick:
            def __init__(self, module, classes, **given):
                self.broken = dict.fromkeys(attack_suites.AutoAttack.NAMES, 0)

            def __call__(self, images, labels):
                used.append(len(images))
                self.broken["square"] += 1
                return images

        Quick.NAMES = attack_suites.AutoAttack.NAMES
        honest, attack_suites.AutoAttack = attack_suites.AutoAttack, Quick
        try:
            for batch in self.batches:
                self.run(self.classifier, batch)
        finally:
            attack_suites.AutoAttack = honest
        return sum(used)


OTHERS = {
    "weights": lambda: {"net": tiny_net(seed=1)},
    "mean": lambda: {"mean": (0.5, 0.5, 0.5)},
    "outputs": lambda: {"columns": torch.tensor([5, 4, 3, 2, 1, 0])},
    "data": lambda: {"described": {"fingerprint": "y"}},
    "settings": lambda: {"settings": {"epsilon": 4 / 255}},
    "seed": lambda: {"seed": 1},
}


@pytest.mark.parametrize("changed", [None, *OTHERS])
def test_stored_images_are_of_one_model_data_and_setting(changed, tmp_path):
    net, data = tiny_net(), tiny_images(8)
    assert Store(tmp_path, net, data).attack() == 8
    other = OTHERS[changed]() if changed else {}
    assert Store(tmp_path, other.pop("net", net), data, **other).attack() == (8 if changed else 0)


def test_ranks_share_what_was_stored_and_count_it_once(tmp_path):
    """Two batches of one rank, continued by two ranks: nothing is attacked again, and the counts add up."""
    net, data = tiny_net(), tiny_images(8)
    assert Store(tmp_path, net, data).attack() == 8
    ranks = [Store(tmp_path, net, data) for _ in range(2)]
    for rank, store in enumerate(ranks):
        store.batches = list(from_arrays(*data, World(rank, 2, torch.device("cpu"))).batches(2))
    assert [store.attack() for store in ranks] == [0, 0]
    assert sum(store.run.counts["square"] for store in ranks) == 2


def levels(model, x):
    """Pixels rounded to few levels, without a gradient but for a slope that leads astray."""
    rounded = (x * 2).round() / 2
    return model.net(rounded.detach() - 1e-3 * (x - x.detach()))


def test_a_model_that_masks_its_gradients_is_noted(data):
    """Its gradient points the wrong way: an attack without any bound should mislead it everywhere, and does not."""
    images, _ = data
    net = tiny_net()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        labels = net(((images.permute(0, 3, 1, 2) / 255 - mean) / std * 2).round() / 2).argmax(1)
    masked = evaluate(Changed(levels), "pgd", (images, labels))
    assert masked.results("pgd")["pgd"]["unbounded_left"] > 0
    assert any("keep their class although every pixel may take any value" in note for note in masked.notes())
    with torch.no_grad():
        labels = net((images.permute(0, 3, 1, 2) / 255 - mean) / std).argmax(1)
    honest = evaluate(net, "pgd", (images, labels))
    assert "unbounded_left" not in honest.results("pgd")["pgd"]
    assert not any("masked gradients" in note for note in honest.notes())


def test_the_attack_without_bound_changes_no_figure(net, data, monkeypatch):
    with_it = evaluate(net, "pgd", data, seed=3).results("pgd")["pgd"]
    monkeypatch.setattr(attack_suites._PGD, "tried", True)
    without = evaluate(net, "pgd", data, seed=3).results("pgd")["pgd"]
    assert {**with_it, "seconds": 0} == {**without, "seconds": 0}


@pytest.mark.slow
def test_autoattack_agrees_with_the_authors_code():
    """Robust images of the authors' AutoAttack and of the suite's, on a small network that is broken partly."""
    theirs = pytest.importorskip("autoattack", reason=WHERE)
    peer("torchattacks")
    net, images, labels = partly_robust()
    for norm, epsilon in (("linf", 18 / 255), ("l2", 1.15)):
        own = attack_suites.AutoAttack(net, 10, epsilon=epsilon, norm=norm)(images, labels)
        authors = theirs.AutoAttack(
            net, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, seed=0, device="cpu", verbose=False
        )
        other = authors.run_standard_evaluation(images, labels, bs=len(images))
        with torch.no_grad():
            mine, robust = (net(x).argmax(1) == labels for x in (own, other))
        assert 0.15 < robust.float().mean() < 0.85
        assert (mine != robust).sum() <= 1  # starts are drawn in another order


def partly_robust():
    """A network trained with FGSM for 350 steps on noisy prototypes of ten classes, and 64 of their images."""
    generator = torch.Generator().manual_seed(7)
    prototypes = nn.functional.interpolate(torch.rand(10, 3, 5, 5, generator=generator), 16, mode="bicubic").clamp(0, 1)

    def draw(n, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(10, (n,), generator=generator)
        noise = torch.rand(n, 3, 16, 16, generator=generator) * torch.rand(n, 1, 1, 1, generator=generator)
        light = torch.rand(n, 1, 1, 1, generator=generator)
        return (0.35 * prototypes[labels] + 0.65 * noise + 0.1 * light).clamp(0, 1), labels

    torch.manual_seed(0)
    sizes = itertools.pairwise((3, 16, 32, 32))
    convolutions = [part for i, (a, b) in enumerate(sizes) for part in (nn.Conv2d(a, b, 3, 1 + (i > 0), 1), nn.ReLU())]
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for step in range(350):
        x, y = draw(64, 1000 + step)
        if step % 2:
            x.requires_grad_()
            (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), x)
            x = (x + 16 / 255 * grad.sign()).clamp(0, 1).detach()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval(), *draw(64, 5)
