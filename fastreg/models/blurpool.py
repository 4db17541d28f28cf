"""Antialiased strided convolution: a binomial filter [1, 2, 1] x [1, 2, 1] / 16 before the convolution.

Source: Zhang, Making convolutional networks shift-invariant again (ICML 2019), section 3. The filter is before the
convolution as in ffcv-imagenet, so the names of the weights are unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BlurConv2d(nn.Conv2d):
    """``nn.Conv2d`` of the filtered input. The filter pads with zeros, as the convolution does."""

    blur: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("blur", torch.outer(line, line)[None, None].repeat(self.in_channels, 1, 1, 1), False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.conv2d(x, self.blur.to(x.dtype), padding=1, groups=self.in_channels))
