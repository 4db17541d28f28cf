"""The suite imagenet-c-bar: its conditions, its total by hand, its files, and its refusals."""

from __future__ import annotations

import pytest
import torch

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from fastreg.evaluation.suites import resolve
from fastreg.kernels import C_BAR_CORRUPTIONS, corrupt
from tests.fastreg.evaluation.tiny_classifier import tiny_images, tiny_net

SUITE = "imagenet-c-bar"


def test_the_total_is_the_mean_of_fifty_errors(net):
    card = evaluate(net, SUITE, tiny_images(6))
    rows = card.results(SUITE)
    assert len(rows) == 50
    assert card.summary()["imagenet_c_bar_error"] == pytest.approx(sum(row["error"] for row in rows.values()) / 50)
    assert "px, while the published set has 224" in card.altered(SUITE)


def test_an_error_is_that_of_the_corrupted_images(net):
    images, labels = tiny_images(12)
    given = {"corruptions": "perlin_noise", "severities": [4], "fidelity": "memory", "seed": 3}
    card = evaluate(net, SUITE, (images, labels), **given)
    changed = corrupt(torch.as_tensor(images), "perlin_noise", 4, seed=3, indices=torch.arange(12))
    expected = evaluate(net, "clean", (changed.numpy(), labels)).summary()["clean_error"]
    assert card.results(SUITE)["perlin_noise/4"]["error"] == expected
    assert "imagenet_c_bar_error" not in card.summary()
    assert any("49 conditions are missing" in note for note in card.notes())


def test_files_of_the_published_layout_are_read(imagenet, tmp_path):
    net = tiny_net(4)
    given = {"corruptions": "sparkles", "severities": [2]}
    corrupt_dataset(imagenet, tmp_path / "bar", size=64, **given)
    stored = evaluate(net, SUITE, imagenet, size=64, imagenet_c_bar_dir=tmp_path / "bar", **given)
    made = evaluate(net, SUITE, imagenet, size=64, **given)
    assert stored.results(SUITE)["sparkles/2"]["error"] == made.results(SUITE)["sparkles/2"]["error"]


def test_other_corruptions_are_refused(net):
    with pytest.raises(InputError, match="none is of ImageNet-C-bar; give blue_noise_sample"):
        evaluate(net, SUITE, tiny_images(2), corruptions="fog")


@pytest.mark.parametrize("size", [32, 224])
def test_full_has_it_and_no_suite_that_must_be_named(size):
    full = resolve("full", size)
    assert SUITE in full
    assert "autoattack" not in full
    assert len(C_BAR_CORRUPTIONS) == 10


def test_full_measures_the_suites_that_have_a_corruption(net):
    card = evaluate(net, "full", tiny_images(4, size=32), corruptions="fog", severities="3")
    assert list(card.results("cifar-c")) == ["fog/3"]
    assert SUITE not in card.suites
    assert {"clean", "fgsm", "pgd", "occlusion", "ood", "calibration-extended"} <= set(card.suites)
