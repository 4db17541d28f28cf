"""``jpeg_round_trip``: Pillow's (libjpeg-turbo's) save and load at 4:2:0 without the file, equal to the bit."""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.dispatch import use_triton
from fastreg.kernels.jpeg.kernels import jpeg_triton
from fastreg.kernels.jpeg.reference import jpeg_reference

__all__ = ["jpeg_round_trip"]


def jpeg_round_trip(images: Tensor, quality: int) -> Tensor:
    """Save and load images as JPEG with 4:2:0 chroma, bit-equal to Pillow at every quality and size.

    On CPU tensors it is OpenCV's JPEG, or Pillow's where the two differ.

    Args:
        images: uint8 [B, H, W, 3], RGB.
        quality: JPEG quality from 1 to 100.

    Returns:
        uint8 [B, H, W, 3], a new tensor on the images' device.

    Raises:
        TypeError: ``images`` is not a uint8 tensor.
        ValueError: ``images`` has another shape, or ``quality`` is not an integer from 1 to 100.

    Source:
        ITU-T T.81; libjpeg's jccolor, jcsample, jdsample and jdcolor, as libjpeg-turbo builds them.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"`images` is {found}: give a torch.uint8 tensor [B, H, W, 3].")
    if images.dim() != 4 or images.shape[-1] != 3:
        raise ValueError(f"`images` has shape {list(images.shape)}: give [B, H, W, 3], channels last.")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"`quality` is {quality!r}: give a whole number from 1 to 100.")
    if images.numel() == 0:
        return images.clone()
    if use_triton(images):
        return jpeg_triton(images.contiguous(), quality)
    return jpeg_reference(images, quality)
