"""Every suite and condition of an evaluation on the simulated GPU: no batch waits for the device."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from fastreg.evaluation import SUITES, evaluate
from tests.fastreg.evaluation.tiny_classifier import tiny_images, tiny_net

QUICK = "clean,fgsm,pgd,occlusion,calibration,confidence,ood"
COSTLY = {"corruptions": "shot_noise,glass_blur,frost,fog,jpeg_compression", "severities": "3"}
OPTIONS = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "compiled": {"compiled": True},
}


def measure(gpu, suites: str, images: int, size: int, **options):
    """The waits and pageable copies of one evaluation."""
    for record in (gpu.waits, gpu.pageable, gpu.launches):
        record.clear()
    card = evaluate(tiny_net(), suites, tiny_images(images, size), batch_size=8, size=size, device="cuda", **options)
    assert gpu.launches
    return card, Counter(gpu.waits), Counter(entry.split(":")[1] for entry in gpu.pageable)


def check(gpu, suites: str, size: int, **options) -> int:
    """Evaluate two and four batches, which may wait equally often. Returns the number of conditions."""
    _, *few = measure(gpu, suites, 13, size, **options)
    card, *many = measure(gpu, suites, 29, size, **options)
    assert few == many
    return sum(len(card.results(suite)) for suite in card.suites)


@pytest.fixture
def frost(monkeypatch):
    """Frost's textures as random images: no download."""
    from fastreg.pipelines import frost as textures
    from tests.kernels.corruptions.golden_cases import frost_textures

    if hasattr(textures, "load_frost"):
        monkeypatch.setattr(textures, "load_frost", lambda *given, **options: frost_textures())


@pytest.mark.parametrize("option", OPTIONS)
def test_the_suites_of_one_set(option, gpu, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda net, **options: net)
    assert check(gpu, QUICK, 64, **OPTIONS[option]) > 10


@pytest.mark.parametrize(("suite", "size"), [("imagenet-c", 64), ("cifar-c", 32)])
def test_corrupted_images(suite, size, gpu):
    assert check(gpu, suite, size, **COSTLY) == 5


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("suite", SUITES)
def test_every_suite(suite, option, gpu, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda net, **options: net)
    check(gpu, suite, 32 if suite == "cifar-c" else 64, **OPTIONS[option])
