"""The corruptions' peers give fastreg's pixels, and take their constants from the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg.benchmarks import images
from fastreg.benchmarks.peers import corruptions
from fastreg.kernels import corrupt
from fastreg.kernels.corruptions.constants import CONSTANTS


def test_the_peers_of_the_corruptions_give_the_same_pixels():
    """Pixels are equal to one level, since peers work in float32. Noise, which each peer draws by itself, is compared
    by its standard deviation."""
    (image,), _ = images._from_golden()
    pixels = torch.from_numpy(np.stack((image, image[:, ::-1])))
    found, why = corruptions.peers()
    if why:
        pytest.skip(why)
    for (name, peer), prepare in found.items():
        for severity in (1, 5):
            apply = prepare(CONSTANTS["imagenet224"][name][severity - 1], torch.device("cpu"))
            theirs = apply(pixels).float()
            ours = corrupt(pixels, name, severity, indices=torch.arange(2)).float()
            if name == "gaussian_noise":
                spread = [(out - pixels).std().item() for out in (theirs, ours)]
                assert spread[0] == pytest.approx(spread[1], rel=0.01)
            else:
                assert (theirs - ours).abs().mean() < 0.6, (name, peer, severity)
                assert (theirs - pixels).abs().mean() > 2
