"""Antialiased strided convolution.

Source: Zhang, Making convolutional networks shift-invariant again (ICML 2019), section 3; the filter is the binomial
[1, 2, 1] x [1, 2, 1] / 16, put before the convolution as ffcv-imagenet does, so that the weights keep their names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BlurConv2d(nn.Conv2d):
    """``nn.Conv2d`` that low-passes its input first, with zero padding as in the convolution."""

    blur: Tensor

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("blur", torch.outer(line, line)[None, None].repeat(self.in_channels, 1, 1, 1), False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.conv2d(x, self.blur.to(x.dtype), padding=1, groups=self.in_channels))
