"""The attacks' two operations in plain torch, the oracle of the kernels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels import philox


def fgsm_step_reference(
    images: Tensor, grad: Tensor, epsilon: float, clip: bool, origin: Tensor | None, radius: float | None
) -> Tensor:
    """``fgsm_step`` on checked arguments."""
    out = torch.where(grad.isnan(), grad, grad.sign()).float().mul_(epsilon)
    out = torch.add(images, out, out=torch.empty_like(images))
    if origin is not None and radius is not None:
        out.clamp_(origin - radius, origin + radius)
    return out.clamp_(0, 1) if clip else out


def start_in_ball_reference(images: Tensor, epsilon: float, seed: int, indices: Tensor, clip: bool) -> Tensor:
    """``start_in_ball`` on checked arguments."""
    B, C, H, W = images.shape
    drawn = philox.field(philox.uniform, seed, indices.cpu().numpy(), H * W * C, 0, "attack_start")
    offset = (2 * drawn - 1).reshape(B, H, W, C) * np.float32(epsilon)
    start = torch.empty_like(images).copy_(images + torch.from_numpy(offset).to(images.device).permute(0, 3, 1, 2))
    return start.clamp(0, 1) if clip else start
