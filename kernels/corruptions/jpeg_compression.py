"""jpeg_compression: one JPEG round trip, bit-equal to Pillow's. Source: ImageNet-C's generation script."""

from __future__ import annotations

from torch import Tensor

from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.jpeg import jpeg_round_trip


def jpeg_compression(images: Tensor, quality: int, fields: dict) -> Tensor:
    return jpeg_round_trip(images, quality)


ROWS = (Corruption("jpeg_compression", jpeg_compression),)
