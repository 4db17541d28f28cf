"""The recipe's colours: which factors a sample gets in an epoch. ``kernels.color_jitter`` applies them.

    brightness, contrast, saturation  ~ U(1 - v, 1 + v), each its own
    shift of red, green and blue      = V diag(eigenvalues) a,  a ~ N(0, w)^3, on the 0-1 scale

with ``--color-jitter`` v and ``--lighting`` w. The eigenvalues and eigenvectors (columns of V) are those of the RGB
values of ImageNet's training pictures.

Source: CutMix-PyTorch (utils.py, train.py: v 0.4, w 0.1); Krizhevsky et al., AlexNet (NIPS 2012), section 4.1.
Cost: not yet measured.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels import Batch, augment, color_jitter, philox
from fastreg.kernels.types import Plan
from fastreg.methods.base import ship

_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def draw(samples: np.ndarray, epoch: int, *, jitter: float, lighting: float, seed: int) -> dict[str, np.ndarray]:
    """Arguments of ``kernels.color_jitter`` by name, float32 [B] and [B, 3], keyed by (seed, sample, epoch)."""
    factors = 1 + jitter * (2 * philox.uniform(philox.words(seed, 0, samples, epoch, "color_jitter")) - 1)
    drawn = {name: factors[:, k] for k, name in enumerate(("brightness", "contrast", "saturation"))}
    if lighting:
        amounts = lighting * philox.normal(philox.words(seed, 0, samples, epoch, "lighting"))[:, :3]
        drawn["lighting"] = (amounts * _EIGENVALUES) @ _EIGENVECTORS.T
    return {name: np.ascontiguousarray(value, np.float32) for name, value in drawn.items()}


def colouring(*, jitter: float, lighting: float, seed: int) -> Callable[[Batch, int, int], Batch]:
    """``(batch, epoch, size) -> batch`` with other colours; the batch itself when ``jitter`` and ``lighting`` are 0.

    The colours are the crop's, as in the recipe: contrast turns about its mean grey value, and what a crop takes from
    beyond the canvas is coloured too. Where the loader leaves cropping to ``augment`` (CIFAR, the resident loader), the
    pictures are therefore cut to ``size`` pixels first, in one more launch; the batch that comes out has no boxes left.
    """
    if not jitter and not lighting:
        return lambda batch, epoch, size: batch

    def colour(batch: Batch, epoch: int, size: int) -> Batch:
        drawn = draw(batch.indices.to("cpu").numpy(), epoch, jitter=jitter, lighting=lighting, seed=seed)
        images = batch.images if batch.crop is None else cut(batch.images, batch.crop, size)
        return batch._replace(images=color_jitter(images, **ship(drawn, images.device)), crop=None)

    return colour


def cut(images: Tensor, crop: Tensor, size: int) -> Tensor:
    """uint8 [B, H, W, 3] canvases to uint8 [B, size, size, 3], as a decoder crops and resizes."""
    pixels = augment(images, Plan(crop=crop), mean=(0.0,) * 3, std=(1.0,) * 3, dtype=torch.float32, size=size)
    return (255 * pixels).round().byte().permute(0, 2, 3, 1)
