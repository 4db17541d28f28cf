"""ImageNet-C-bar against stored output of its published code, and the laws of its draws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fastreg.kernels import C_BAR_CORRUPTIONS, corrupt, draw_fields
from fastreg.kernels.corruptions import c_bar
from fastreg.kernels.dispatch import INTERPRETED
from tests.kernels.fake_cuda import Watch, aten, fake, getitem

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "c_bar.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def drawn(name: str, count: int, size: int = 64, **options) -> dict[str, np.ndarray]:
    fields = draw_fields(name, 3, seed=5, indices=torch.arange(count), size=size, **options)
    return {field: values.numpy() for field, values in fields.items()}


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", C_BAR_CORRUPTIONS)
def test_published_output(name, severity, golden):
    start = f"{name}/{severity}/"
    fields = {key.removeprefix(start): values for key, values in golden.items() if key.startswith(start)}
    published = fields.pop("out")
    out = corrupt(golden["images"], name, severity, fields=fields)
    assert torch.equal(out, published)
    assert not torch.equal(out, golden["images"])


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("name", C_BAR_CORRUPTIONS)
def test_an_image_does_not_depend_on_its_batch(name, size):
    images = torch.randint(0, 256, (5, size, size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    indices = torch.tensor([4, 900, 31, 2, 77])
    together = corrupt(images, name, 2, seed=3, indices=indices)
    assert (together.dtype, together.shape) == (torch.uint8, images.shape)
    for k in range(5):
        assert torch.equal(corrupt(images[k : k + 1], name, 2, seed=3, indices=indices[k : k + 1])[0], together[k])
    given = draw_fields(name, 2, seed=3, indices=indices, size=size)
    assert torch.equal(corrupt(images, name, 2, fields=given), together)
    assert not torch.equal(corrupt(images, name, 2, seed=4, indices=indices), together)
    assert corrupt(images[:0], name, 2, indices=indices[:0]).shape == (0, size, size, 3)


@pytest.mark.parametrize(
    ("name", "field", "low", "high"),
    [
        ("single_frequency_greyscale", "phase", 0, 2 * math.pi),
        ("cocentric_sine_waves", "center", 0, 64),
        ("cocentric_sine_waves", "frequency", 0, 10),
        ("cocentric_sine_waves", "amplitude", 0, 6.4),
        ("cocentric_sine_waves", "ring_width", 0, 6.4),
        ("plasma_noise", "time", 0, 6 * math.pi),
        ("plasma_noise", "sharpness", 0.5, 1),
        ("plasma_noise", "scale", 4.8, 12.8),
        ("sparkles", "center", 0, 64),
        ("inverse_sparkles", "center", 16, 48),
        ("blue_noise_sample", "phase", 0, 2 * math.pi),
        ("brownish_noise", "phase", 0, 2 * math.pi),
        ("checkerboard_cutout", "angle", 0, 2 * math.pi),
        ("checkerboard_cutout", "side", 6.4, 16),
        ("checkerboard_cutout", "uniform", 0, 1),
        ("caustic_refraction", "time", 0.5, 2),
        ("caustic_refraction", "size", 48, 80),
    ],
)
def test_uniform_fields(name, field, low, high):
    values = drawn(name, 600 if field not in ("phase", "uniform") or name == "single_frequency_greyscale" else 6)[field]
    assert stats.kstest(values.ravel(), stats.uniform(low, high - low).cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("name", "field", "low", "high"),
    [("plasma_noise", "iterations", 4, 7), ("sparkles", "rays", 50, 200), ("perlin_noise", "gradient", -256, 256)],
)
def test_whole_fields(name, field, low, high):
    values = drawn(name, 300)[field].ravel()
    assert stats.chisquare(np.bincount(values - low, minlength=high - low)).pvalue > 1e-4


def test_frequencies():
    """One of the pair is uniform, the other uniform up to its size, in either order."""
    pair = drawn("single_frequency_greyscale", 4000)["frequency"]
    large = np.abs(pair).argmax(1)
    assert stats.binomtest(int(large.sum()), len(large)).pvalue > 1e-4
    assert stats.kstest(np.abs(pair).max(1), stats.uniform(0, math.pi).cdf).pvalue > 1e-4
    assert stats.kstest(np.abs(pair).min(1) / np.abs(pair).max(1), stats.uniform(0, 1).cdf).pvalue > 1e-4


def test_permutations_are_those_of_swaps_with_any_entry():
    """The published shuffle swaps entry i with any other, so that its distribution is not uniform: against numpy."""
    permutation = drawn("perlin_noise", 3000)["permutation"]
    assert (np.sort(permutation, 1) == np.arange(256)).all()
    rng, rows = np.random.default_rng(0), np.tile(np.arange(256), (3000, 1))
    for row in rows:
        for i in range(255, -1, -1):
            j = rng.integers(256)
            row[i], row[j] = row[j], row[i]
    for at in (0, 128, 255):
        found, expected = (np.bincount(p[:, at] // 32, minlength=8) for p in (permutation, rows))
        assert stats.chi2_contingency(np.stack((found, expected))).pvalue > 1e-4


def test_a_gradient_without_length_is_zero():
    images = torch.full((1, 32, 32, 3), 90, dtype=torch.uint8)
    fields = {"gradient": torch.zeros(1, 256, 2), "permutation": torch.arange(256)[None]}
    out = corrupt(images, "perlin_noise", 1, fields=fields)
    share = c_bar.LEVELS["perlin_noise"][0] / 20
    assert (out == int((1 - share) * 90 + share * 127.5)).all()


@pytest.mark.parametrize(
    ("name", "field", "wrong", "words"),
    [
        ("sparkles", "rays", torch.zeros(1, 5, dtype=torch.int64), "whole numbers from 1 to 199"),
        ("perlin_noise", "permutation", torch.full((1, 256), 256), "whole numbers from 0 to 255"),
        ("caustic_refraction", "size", torch.zeros(1), "finite numbers above 0"),
        ("brownish_noise", "phase", torch.zeros(1, 512), r"takes \[1, 3, 512\]"),
    ],
)
def test_wrong_fields(name, field, wrong, words):
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    fields = draw_fields(name, 1, seed=0, indices=torch.arange(1), size=32)
    with pytest.raises(ValueError, match=words):
        corrupt(images, name, 1, fields={**fields, field: wrong})


@pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1 replaces the launcher")
@pytest.mark.parametrize("name", C_BAR_CORRUPTIONS)
def test_the_host_does_not_wait_for_a_gpu(name, launched, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(FakeTensor, "__getitem__", getitem)
    monkeypatch.setattr(FakeTensor, "contiguous", lambda x: aten.clone(x, memory_format=torch.contiguous_format))
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        images = fake(torch.empty((4, 224, 224, 3), dtype=torch.uint8))
        with Watch():
            out = corrupt(images, name, 5, indices=np.arange(4))
    assert out.is_cuda
    assert (out.shape, out.dtype) == (images.shape, torch.uint8)
