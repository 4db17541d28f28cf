"""Every suite and condition of an evaluation on the simulated GPU: no batch waits for the device."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from PIL import Image

from fastreg.evaluation import SUITES, evaluate
from fastreg.metrics import Tally
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


# without spatter, whose water OpenCV draws on the host
ON_THE_GPU = "gaussian_noise,shot_noise,motion_blur,zoom_blur,brightness,translate,rotate,tilt,scale"
NOT_SIMULATED = {
    "autoattack": "it chooses images by their values, which fake tensors do not have",
    "natural": "its sets are files: the next test has them",
    "full": "it contains autoattack; its other suites are tested one by one",
}


def check(gpu, suites: str, size: int, **options) -> int:
    """Evaluate two and four batches, which wait no more often. Returns the number of conditions."""
    _, *few = measure(gpu, suites, 13, size, **options)
    card, *many = measure(gpu, suites, 29, size, **options)
    for before, after in zip(few, many):  # tables that are made once are not copied again
        assert after - before == Counter()
    return sum(len(card.results(suite)) for suite in card.suites)


@pytest.mark.parametrize(
    "option", ["fp32", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bf16", "compiled"))]
)
def test_the_suites_of_one_set(option, gpu, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda net, **options: net)
    assert check(gpu, QUICK, 64, **OPTIONS[option]) == 6


@pytest.mark.parametrize(("suite", "size"), [pytest.param("imagenet-c", 64, marks=pytest.mark.slow), ("cifar-c", 32)])
def test_corrupted_images(suite, size, gpu):
    assert check(gpu, suite, size, **COSTLY) == 5


@pytest.mark.slow
def test_scores_from_features(gpu):
    assert check(gpu, "ood-features", 32, fit_data=tiny_images(60, 32, seed=7), ood_scores="energy,odin,knn,react") == 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("suite", SUITES)
def test_every_suite(suite, option, gpu, monkeypatch):
    if suite in NOT_SIMULATED:
        pytest.skip(NOT_SIMULATED[suite])
    monkeypatch.setattr(torch, "compile", lambda net, **options: net)
    more = {"perturbations": ON_THE_GPU} if suite == "cifar-p" else {}
    check(gpu, suite, 32 if suite in ("cifar-c", "cifar-p") else 64, **OPTIONS[option], **more)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cudnn_searches_in_half_precision_only_and_the_card_says_so(precision, gpu, monkeypatch):
    """Whatever the caller's switch is, which is put back."""
    seen = []
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", precision == "fp32")
    honest = Tally.update
    monkeypatch.setattr(Tally, "update", lambda *a: (seen.append(torch.backends.cudnn.benchmark), honest(*a))[1])
    card, *_ = measure(gpu, "clean", 8, 32, precision=precision)
    assert set(seen) == {precision == "bf16"}
    assert card.settings.get("cudnn_benchmark", False) == (precision == "bf16")
    assert torch.backends.cudnn.benchmark == (precision == "fp32")


def test_natural_sets_of_any_size_wait_as_often(gpu, tmp_path):
    """Two batches and four, with outputs that are chosen and merged on the device."""
    found = []
    for images in (13, 29):
        folder = tmp_path / str(images) / "imagenet-r" / "n01443537"
        folder.mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (40, 40), (number, 9, 200)).save(folder / f"{number}.png")
        for record in (gpu.waits, gpu.pageable):
            record.clear()
        card = evaluate(
            tiny_net(classes=1000), "natural", folder.parent, batch_size=8, size=32, device="cuda", loader="folder"
        )
        assert list(card.results("natural")) == ["imagenet-r"]
        found.append((Counter(gpu.waits), Counter(entry.split(":")[1] for entry in gpu.pageable)))
    assert found[0] == found[1]
