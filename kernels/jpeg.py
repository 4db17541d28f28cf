"""The JPEG round trip: what Pillow's (libjpeg-turbo's) save and load at 4:2:0 make of an image."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor


def jpeg_round_trip(images: Tensor, quality: int) -> Tensor:
    """uint8 [B,H,W,3] RGB after one save and load as JPEG at ``quality`` (1 to 100), chroma 4:2:0.

    Bit-equal to Pillow, and on CPU tensors it is Pillow. Raises TypeError or ValueError on other input.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        raise TypeError(f"jpeg_round_trip needs a uint8 tensor [B,H,W,3]; got {_what(images)}.")
    if images.dim() != 4 or images.shape[-1] != 3:
        raise ValueError(f"jpeg_round_trip needs images [B,H,W,3] with channels last; got shape {tuple(images.shape)}.")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be a whole number from 1 to 100; got {quality!r}.")
    return _pillow(images, quality)


def _what(images: object) -> str:
    return str(images.dtype) if isinstance(images, Tensor) else type(images).__name__


def _pillow(images: Tensor, quality: int) -> Tensor:
    from PIL import Image

    host = images.cpu().numpy()
    result = np.empty_like(host)
    for source, target in zip(host, result):
        buffer = io.BytesIO()
        Image.fromarray(source).save(buffer, "JPEG", quality=quality)
        target[:] = np.asarray(Image.open(buffer))
    return torch.from_numpy(result).to(images.device)
