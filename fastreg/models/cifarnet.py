"""CifarNet: a small network for 32 px images. The first layer is computed from training images, not trained.

    whitening    2x2 convolution with 24 filters, GELU: the eigenvectors v_i of the covariance of 2x2x3 patches, each
                 times +-1 / sqrt(e_i + 5e-4) with its eigenvalue e_i, so that their outputs are uncorrelated
    three blocks 3x3, max-pool 2, norm, GELU, 3x3, norm, GELU
    head         max-pool to 1x1, linear without bias, times 1/9

3x3 convolutions start as the identity on their input channels (Dirac), as far as they have output channels.

Source: Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU (arXiv 2404.00498), section 3, without the bias of the
whitening, the larger learning rate of biases, and lookahead. The accuracy of this network is not yet measured.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# name -> widths of the three blocks
CIFARNETS = {"cifarnet": (64, 256, 256)}
FLOOR = 5e-4  # added to the eigenvalues, most of which are close to 0


class Block(nn.Sequential):
    """[B, inputs, h, w] to [B, outputs, h // 2, w // 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        first, second = (nn.Conv2d(n, outputs, 3, padding=1, bias=False) for n in (inputs, outputs))
        for conv in (first, second):
            nn.init.dirac_(conv.weight[: conv.in_channels].detach())
        halves = (first, nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.GELU())
        super().__init__(*halves, second, nn.BatchNorm2d(outputs), nn.GELU())


class CifarNet(nn.Module):
    """[B, 3, h, w] normalized images (32 px; at least 16) to [B, num_classes] logits."""

    whitening: Tensor

    def __init__(self, widths: tuple[int, int, int], num_classes: int):
        super().__init__()
        self.register_buffer("whitening", torch.randn(24, 3, 2, 2) / 12**0.5)
        self.blocks = nn.Sequential(*(Block(n, m) for n, m in zip((24, *widths), widths)))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.gelu(F.conv2d(x, self.whitening.to(x.dtype))))
        return self.head(x.amax((2, 3))) / 9

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Compute the first layer from training images, normalized float [N, 3, h, w], before the first step."""
        patches = images.double().unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + FLOOR).sqrt()).T.reshape(12, 3, 2, 2)
        self.whitening.copy_(torch.cat((filters, -filters)))
