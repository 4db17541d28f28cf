"""Peers take their constants from the device: a timed call makes no tensor from Python numbers."""

from __future__ import annotations

import pytest
import torch

from fastreg import methods
from fastreg.benchmarks.images import image_batch
from fastreg.benchmarks.peers import corruptions, normalization_stats
from fastreg.benchmarks.peers.kernels import augment_peers, plain_augment
from fastreg.kernels.corruptions.constants import CONSTANTS

CPU = torch.device("cpu")
MAKERS = ("tensor", "as_tensor", "from_numpy")


@pytest.fixture
def no_constants(monkeypatch):
    """``no_constants()`` forbids torch's functions that copy Python numbers to a device, since the copy waits."""

    def forbid():
        for name in MAKERS:

            def refuse(*_, name=name, **__):
                raise AssertionError(f"torch.{name} in a timed call")

            monkeypatch.setattr(torch, name, refuse)

    return forbid


@pytest.mark.parametrize("reg", ["none", "mixup", "cutmix", "cutout"])
def test_plain_augment(reg, no_constants):
    images, stats = image_batch(2, 32, CPU), normalization_stats(CPU)
    plan, _ = methods.create(reg, size=32, scope="sample").draw(torch.arange(2), torch.arange(2), 0)
    no_constants()
    assert plain_augment(images, plan, torch.float32, stats).isfinite().all()


def test_the_prefetcher_of_timm(no_constants):
    (build,) = [build for case, peer, build in augment_peers(torch.arange(2), torch.float32) if "Prefetch" in peer]
    try:
        prefetched = build()
    except ImportError as error:
        pytest.skip(str(error))
    images = image_batch(2, 32, CPU).permute(0, 3, 1, 2).contiguous()
    no_constants()
    assert prefetched(images).isfinite().all()


def test_defocus_blur_of_kornia(no_constants):
    found, why = corruptions.peers()
    if why:
        pytest.skip(why)
    apply = found["defocus_blur", "kornia"](CONSTANTS["imagenet224"]["defocus_blur"][2], CPU)
    images = image_batch(2, 64, CPU)
    no_constants()
    assert apply(images).shape == images.shape
