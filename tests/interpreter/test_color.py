"""The kernels of ``color_jitter`` beyond the registry's example."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels.color import color_jitter, kernels
from fastreg.kernels.color.reference import color_jitter_reference
from fastreg.kernels.color.registry import OPS

ARGUMENTS = OPS[0].example("cpu", small=True)


@pytest.mark.parametrize("shape", [(4, 4), (32, 32), (7, 9)])
@pytest.mark.parametrize("lit", [True, False])
def test_sizes_with_and_without_lighting(shape, lit):
    images = torch.randint(0, 256, (3, *shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    arguments = ARGUMENTS | {"images": images, "lighting": ARGUMENTS["lighting"] if lit else None}
    assert torch.equal(color_jitter(**arguments), color_jitter_reference(**arguments))


def test_images_that_are_not_whole_vectors_are_not_supported():
    assert kernels.supports(torch.zeros(2, 12, 20, 3, dtype=torch.uint8))
    assert not kernels.supports(torch.zeros(2, 7, 9, 3, dtype=torch.uint8))
    assert not kernels.supports(torch.zeros(3, 2, 8, 3, dtype=torch.uint8).flatten()[1:49].view(1, 2, 8, 3))
