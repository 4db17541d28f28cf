"""The draws of automatic augmentation against those of torchvision and timm, sample for sample of their own code.

A recorder stands in for the operation on pixels. Counts are compared by chi-square tests, continuous magnitudes by
Kolmogorov and Smirnov's, on fixed seeds: p is above 1e-3 where the laws are equal, with few exceptions by chance.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import beta, chi2_contingency, chisquare, ks_2samp, kstest

from fastreg import methods
from fastreg.kernels import AUTO_AUGMENT_OPERATIONS
from fastreg.methods.auto_augment_policy import POLICIES, parse
from fastreg.training.auto_augment_flags import parse_timm
from tests.support import peer

COUNT = 3000
SIDES = (40, 60)  # height, width
LEAST = 1e-3
IMAGE = Image.new("RGB", SIDES[::-1])


def drawn(name: str, count: int = COUNT, **parameters: Any) -> dict[str, np.ndarray]:
    """The plan's arrays of ``count`` samples."""
    indices = torch.arange(count)
    plan, _ = methods.create(name, size=SIDES, seed=3, **parameters).draw(indices, indices, 0, epoch=1)
    return {key: value.numpy() for key, value in plan._asdict().items() if value is not None}


def rows(plan: dict[str, np.ndarray]) -> list[tuple]:
    """The operations of each sample with their magnitudes, as torchvision's recorder lists them."""
    names = np.array(AUTO_AUGMENT_OPERATIONS)[plan["operations"]]
    return [
        tuple((name, round(float(m), 4)) for name, m in zip(*sample))
        for sample in zip(names.tolist(), plan["magnitudes"].tolist())
    ]


def of_torchvision(monkeypatch: Any, build: Callable[[Any], Any]) -> list[tuple]:
    """What a torchvision transform applies to each of COUNT images: operation and magnitude, without the identity."""
    module = peer("torchvision.transforms").autoaugment
    calls: list = []

    def record(image: Any, name: str, magnitude: float, interpolation: Any, fill: Any) -> Any:
        calls.append((name, round(magnitude, 4)))
        return image

    monkeypatch.setattr(module, "_apply_op", record)
    torch.manual_seed(0)
    transform = build(module)
    samples = []
    for _ in range(COUNT):
        calls.clear()
        transform(IMAGE)
        samples.append(tuple(calls))
    return samples


def assert_same_counts(ours: list, theirs: list) -> None:
    """Equal laws of a categorical variable; rare categories are merged."""
    one, two = Counter(ours), Counter(theirs)
    common = [key for key in one.keys() | two.keys() if one[key] + two[key] >= 16]
    table = np.array([[counts[key] for key in common] for counts in (one, two)])
    rest = [[sum(counts.values()) - row.sum()] for counts, row in zip((one, two), table)]
    assert chi2_contingency(np.hstack([table, rest] if min(rest) > [8] else [table])).pvalue > LEAST
    alone = [key for key in one.keys() ^ two.keys() if one[key] + two[key] >= 16]
    assert not alone


def applied(sample: tuple) -> tuple:
    return tuple(row for row in sample if row[0] != "Identity")


def test_trivial_augment_draws_as_torchvision(monkeypatch):
    theirs = of_torchvision(monkeypatch, lambda module: module.TrivialAugmentWide())
    ours = rows(drawn("trivial_augment"))
    assert_same_counts([row[0][0] for row in ours], [row[0][0] for row in theirs])
    assert_same_counts(ours, theirs)
    # all 14 operations, 31 magnitudes and both signs, each within rounding of torchvision's own tables
    space = peer("torchvision.transforms").autoaugment.TrivialAugmentWide()._augmentation_space(31)
    possible = {
        (name, round(sign * float(m), 4))
        for name, (magnitudes, signed) in space.items()
        for m in magnitudes.reshape(-1)
        for sign in ((1, -1) if signed else (1,))
    }
    assert {row[0] for row in rows(drawn("trivial_augment", 40000))} == possible


@pytest.mark.parametrize("parameters", [{}, {"num_ops": 3, "magnitude": 4, "num_magnitude_bins": 11}])
def test_rand_augment_draws_as_torchvision(monkeypatch, parameters):
    theirs = of_torchvision(monkeypatch, lambda module: module.RandAugment(**parameters))
    ours = rows(drawn("rand_augment", **parameters))
    for slot in range(parameters.get("num_ops", 2)):
        assert_same_counts([row[slot] for row in ours], [row[slot] for row in theirs])
    assert_same_counts([tuple(op for op, _ in row[:2]) for row in ours], [tuple(op for op, _ in r[:2]) for r in theirs])


@pytest.mark.parametrize("policy", ["imagenet", "cifar10"])
def test_auto_augment_draws_as_torchvision(monkeypatch, policy):
    module = peer("torchvision.transforms").autoaugment
    table = module.AutoAugment(module.AutoAugmentPolicy(policy)).policies
    operations, probabilities, levels = parse(POLICIES[policy])
    ours = [
        tuple((AUTO_AUGMENT_OPERATIONS[o], p, level) for o, p, level in zip(*pair))
        for pair in zip(operations, probabilities, levels)
    ]
    assert ours == [tuple((o, pytest.approx(p), level or 0) for o, p, level in pair) for pair in table]
    theirs = of_torchvision(monkeypatch, lambda module: module.AutoAugment(module.AutoAugmentPolicy(policy)))
    own = [applied(row) for row in rows(drawn("auto_augment_policy", policy=policy))]
    assert_same_counts(own, [tuple(sample) for sample in theirs])


@pytest.mark.parametrize("parameters", [{"all_ops": True}, {"severity": 7, "depth": 2, "width": 2}])
def test_augmix_draws_as_torchvision(monkeypatch, parameters):
    theirs_arguments = {"all_ops": parameters.get("all_ops", False), "severity": parameters.get("severity", 3)}
    theirs_arguments |= {"chain_depth": parameters.get("depth", -1), "mixture_width": parameters.get("width", 3)}
    weights: list[np.ndarray] = []

    def build(module: Any) -> Any:
        transform = module.AugMix(**theirs_arguments)
        sample = transform._sample_dirichlet
        transform._sample_dirichlet = lambda given: weights.append(sample(given)) or weights[-1]
        return transform

    theirs = of_torchvision(monkeypatch, build)
    plan = drawn("augmix", jsd=False, **parameters)
    chains = [[applied(chain) for chain in sample] for sample in _by_chain(plan)]
    flat = [row for sample in chains for chain in sample for row in chain]
    assert_same_counts(flat, [row for sample in theirs for row in sample])
    assert_same_counts([sum(map(len, sample)) for sample in chains], [len(sample) for sample in theirs])
    assert_same_counts([len(sample[0]) for sample in chains], [len(sample[-1]) for sample in chains])
    blend, mix = (torch.cat(weights[k::2]).numpy() for k in (0, 1))
    assert ks_2samp(plan["chain_weights"].sum(1), blend[:, 1]).pvalue > LEAST
    for chain in range(theirs_arguments["mixture_width"]):
        assert ks_2samp(plan["chain_weights"][:, chain], mix[:, chain] * blend[:, 1]).pvalue > LEAST


def _by_chain(plan: dict[str, np.ndarray]) -> list[list[tuple]]:
    width = plan["operations"].shape[1]
    flat = rows({key: plan[key].reshape(-1, plan[key].shape[-1]) for key in ("operations", "magnitudes")})
    return [flat[i : i + width] for i in range(0, len(flat), width)]


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_augmixs_weights_follow_dirichlet_and_beta(alpha):
    weights = drawn("augmix", jsd=False, alpha=alpha, width=4)["chain_weights"].astype(float)
    blend = weights.sum(1)
    assert kstest(blend, beta(alpha, alpha).cdf).pvalue > LEAST
    kept = blend > 1e-4
    for chain in range(4):  # a part of a symmetric Dirichlet is Beta(alpha, 3 alpha)
        assert kstest(weights[kept, chain] / blend[kept], beta(alpha, 3 * alpha).cdf).pvalue > LEAST


def of_timm(text: str, augmix: bool = False) -> list[list[tuple[str, float, int]]]:
    """What a transform of timm applies to each of COUNT images: operation, magnitude as here, and interpolation."""
    module = peer("timm").data.auto_augment
    hparams = {"translate_const": 0, "img_mean": (1, 2, 3), **({"translate_pct": 0.3} if augmix else {})}
    build = module.augment_and_mix_transform if augmix else module.rand_augment_transform
    transform = build(text, hparams)
    calls: list = []

    def recorder(name: str) -> Callable[..., Any]:
        def record(image: Any, *values: float, fillcolor: Any, resample: Any) -> Any:
            assert fillcolor == (1, 2, 3)
            calls.append((*_as_here(name, *values), random.choice(resample) - 1))
            return image

        return record

    for operation in transform.ops:
        operation.aug_fn = recorder(operation.name)
    random.seed(1)
    np.random.seed(1)
    samples = []
    for _ in range(COUNT):
        calls.clear()
        transform(IMAGE)
        samples.append(list(calls))
    return samples


def _as_here(name: str, value: float = 0.0) -> tuple[str, float]:
    name = name.removesuffix("Increasing").removesuffix("Rel")
    if name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return name, value - 1
    if name.startswith("Translate"):  # timm's direction is the other one; the sign is symmetric
        return name, round(-value * SIDES[1 if name == "TranslateX" else 0])
    return name, value


def as_rows(plan: dict[str, np.ndarray]) -> list[list[tuple[str, float, int]]]:
    """Likewise for a plan."""
    flat = [plan[key].reshape(len(plan["operations"]), -1).tolist() for key in ("magnitudes", "interpolation")]
    names = np.array(AUTO_AUGMENT_OPERATIONS)[plan["operations"]].reshape(len(plan["operations"]), -1).tolist()
    return [[row for row in zip(*sample) if row[0] != "Identity"] for sample in zip(names, *flat)]


BILINEAR, BICUBIC = 1, 2  # one less than Pillow's numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "rand-m9-mstd0.5-inc1",
        "rand-m9-n3-mstd101",
        "rand-m7-p0.8-mstd3-mmax12",
        "rand-m6-n3-mstd1-tweights",
        "rand",
        "augmix-m3-w3",
        "augmix-m5-w2-d2-mstd1",
    ],
)
def test_timms_strings_draw_as_timm(text):
    name, parameters = parse_timm(text)
    more = {"jsd": False} if name == "augmix" else {}
    plan = drawn(name, **parameters, **more)
    ours, theirs = as_rows(plan), of_timm(text, name == "augmix")
    assert_same_counts([len(sample) for sample in ours], [len(sample) for sample in theirs])
    assert_same_counts(*([op for sample in rows for op, *_ in sample] for rows in (ours, theirs)))
    if name == "rand_augment":  # the order of operations, which weights draw without replacement
        pairs = [[tuple(op for op, *_ in sample[:2]) for sample in rows] for rows in (ours, theirs)]
        assert_same_counts(*pairs)
        if "tweights" in text:
            assert all(len(set(names)) == len(names) for names in ([op for op, *_ in sample] for sample in ours))
    magnitudes: list[dict[str, list[float]]] = [{}, {}]
    for found, samples in zip(magnitudes, (ours, theirs)):
        for sample in samples:
            for op, m, _ in sample:
                found.setdefault(op, []).append(round(m, 5))
    for op in magnitudes[1].keys() & magnitudes[0].keys():
        one, two = magnitudes[0][op], magnitudes[1][op]
        if min(len(one), len(two)) < 60:
            continue
        if set(one) | set(two) == {one[0]}:
            continue
        if len(set(two)) < 40:
            assert_same_counts(one, two)
        else:
            assert ks_2samp(one, two).pvalue > LEAST, op
    modes = Counter(mode for sample in ours for *_, mode in sample)
    assert chisquare(list(modes.values())).pvalue > LEAST
    assert modes.keys() == {mode for sample in theirs for *_, mode in sample} == {BILINEAR, BICUBIC}
