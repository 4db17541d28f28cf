"""``Normalized``: a model with normalization as its first layer. Attacks measure distances on pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """``model((x - mean) / std)`` for pixels x, float32 [B, 3, h, w] in [0, 1].

    The state dict has the model's names with the prefix ``model.``; mean and std are not in it.

    Args:
        model: Normalized images, float32 [B, 3, h, w], to logits.
        mean: Mean of each channel on the 0-1 scale, three numbers.
        std: Standard deviation of each channel on the 0-1 scale, three numbers.
    """

    mean: Tensor
    inverse: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, 3, 1, 1), False)
        self.register_buffer("inverse", 1 / torch.tensor(tuple(std)).view(1, 3, 1, 1), False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model((pixels - self.mean) * self.inverse)
