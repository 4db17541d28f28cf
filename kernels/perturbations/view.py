"""The images that a perturbation reads: whole, or the centered squares that its frames show."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor


class View:
    """Whole images, and the centered square of ``size`` pixels that the frames show of each.

    Args:
        images: uint8 [B, H, W, 3]; each image fills the top left corner of its canvas.
        extents: int64 [B, 2] on the host, height and width of each image.
        size: side of the frames in pixels.
    """

    def __init__(self, images: Tensor, extents: np.ndarray, size: int):
        self.images, self.extents, self.size = images.contiguous(), extents, size
        # rounded half to even, as torchvision's center crop
        self.corners = np.rint((extents - size) / 2).astype(np.int64)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        return self.images.device

    @cached_property
    def squares(self) -> Tensor:
        """uint8 [B, size, size, 3]"""
        n = self.size
        if self.images.shape[1:3] == (n, n):
            return self.images
        corners = self.corners.tolist()
        cut = [image[top : top + n, left : left + n] for image, (top, left) in zip(self.images, corners)]
        return torch.stack(cut) if cut else self.images.new_empty((0, n, n, 3))
