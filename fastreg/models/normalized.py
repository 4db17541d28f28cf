"""A model that takes pixels: attacks and evaluation measure distances on the 0-1 scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """``model((x - mean) / std)`` for x float32 [B, 3, h, w] in [0, 1]; mean and std per channel on that scale.

    The buffers are not part of the state dict, whose names are the model's after ``model.``.
    """

    mean: Tensor
    inverse: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, 3, 1, 1), False)
        self.register_buffer("inverse", 1 / torch.tensor(tuple(std)).view(1, 3, 1, 1), False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model((pixels - self.mean) * self.inverse)
