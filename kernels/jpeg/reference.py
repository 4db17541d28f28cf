"""The JPEG round trip by libraries: the route of CPU tensors, and the oracle of the kernels."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import torch
from torch import Tensor


def jpeg_reference(images: Tensor, quality: int) -> Tensor:
    """``jpeg_round_trip`` on checked CPU tensors: OpenCV, which takes half of Pillow's time, where the two agree."""
    return (opencv_round_trip if opencv_equals_pillow() else pillow_round_trip)(images, quality)


def pillow_round_trip(images: Tensor, quality: int) -> Tensor:
    """Pillow's save and load of each image."""
    from PIL import Image

    host = images.numpy()
    result = np.empty(host.shape, np.uint8)
    for source, target in zip(host, result):
        buffer = io.BytesIO()
        Image.fromarray(source).save(buffer, "JPEG", quality=quality)
        target[:] = np.asarray(Image.open(buffer, formats=("JPEG",)))
    return torch.from_numpy(result)


def opencv_round_trip(images: Tensor, quality: int) -> Tensor:
    """OpenCV's encoding and decoding of each image."""
    import cv2

    settings = (cv2.IMWRITE_JPEG_QUALITY, quality)
    result = np.empty(images.shape, np.uint8)
    for source, target in zip(images.contiguous().numpy(), result):
        file = cv2.imencode(".jpg", cv2.cvtColor(source, cv2.COLOR_RGB2BGR), settings)[1]
        cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB, dst=target)
    return torch.from_numpy(result)


@cache
def opencv_equals_pillow() -> bool:
    """Whether OpenCV's JPEG equals Pillow's on two images. Their wheels bring libjpeg-turbo; other builds may not."""
    y, x, c = np.ogrid[:37, :53, :3]
    wild = ((x * x * 7 + y * y * 13 + x * y * (c + 3)) % 256).astype(np.uint8)
    smooth = np.broadcast_to(4 * x + 2 * y + 20 * c, wild.shape).clip(0, 255).astype(np.uint8)
    probe = torch.from_numpy(np.stack((wild, smooth)))
    return all(torch.equal(opencv_round_trip(probe, q), pillow_round_trip(probe, q)) for q in (5, 50, 95))
