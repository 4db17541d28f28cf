"""The random start of attacks in launches of a few images each."""

import pytest
import torch

from fastreg.kernels.attacks import kernels, start_in_ball
from fastreg.kernels.attacks.reference import start_in_ball_reference


@pytest.mark.parametrize("largest", [2, 5, 65_535])
def test_a_batch_that_exceeds_a_grid_is_divided(largest, monkeypatch):
    monkeypatch.setattr(kernels, "LARGEST_GRID", largest)
    images = torch.rand(5, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    indices = torch.tensor([7, 0, 2**40, 3, 11])
    got = start_in_ball(images, 0.1, 3, indices)
    # the kernel may contract a product and a sum
    torch.testing.assert_close(got, start_in_ball_reference(images, 0.1, 3, indices, True), atol=1e-7, rtol=0)
