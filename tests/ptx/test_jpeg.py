"""jpeg_round_trip at every kind of side: multiples of 16, odd, tiny."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from fastreg.kernels import jpeg_round_trip
from fastreg.kernels.jpeg.reference import pillow_round_trip
from tests.ptx.case import Case, check, levels

SIZES = (
    (2, 224, 224, 85),
    (3, 32, 48, 25),
    (2, 37, 51, 7),
    (1, 8, 9, 95),
    (2, 1, 2, 100),
    (1, 1, 1, 50),
    (2, 6, 3, 50),
)


@pytest.mark.parametrize(("B", "H", "W", "quality"), SIZES)
def test_jpeg(B, H, W, quality, emulator):
    images = levels(B, H, W, 3)
    y, x = torch.arange(H).view(H, 1, 1), torch.arange(W).view(1, W, 1)
    images[0] = ((4 * x + 2 * y + 20 * torch.arange(3)) % 256).to(torch.uint8)
    if B > 1:
        images[1] = images[1] // 128 * 255
    call, reference = (partial(f, images, quality) for f in (jpeg_round_trip, pillow_round_trip))
    check(emulator, Case(f"{B}x{H}x{W}, quality {quality}", call, reference))
