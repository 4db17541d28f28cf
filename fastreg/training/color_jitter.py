"""Color jitter and PCA lighting of the ImageNet recipe: the draws; ``kernels.color_jitter`` applies them.

    brightness, contrast, saturation  ~ U(1 - v, 1 + v), independent
    shift of red, green and blue      = V diag(eigenvalues) a,  a ~ N(0, w)^3, on the 0-1 scale

with v the setting ``color_jitter`` and w the setting ``lighting``. The eigenvalues and eigenvectors (columns of V) are
those of the RGB values of ImageNet's training images.

The result is clipped and rounded to bytes, unless ``color_clip`` is off, as in the original code: then the colors of
float pixels change, between the flip and the normalization.

Source: CutMix-PyTorch (utils.py, train.py: v 0.4, w 0.1); Krizhevsky et al., AlexNet (NIPS 2012), section 4.1.
Cost: not yet measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import InputError
from fastreg.kernels import Batch, augment, color_jitter, philox
from fastreg.kernels.augmentation.float_pixels import normalize_and_mix
from fastreg.kernels.color.unclipped import color_jitter_unclipped
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


def make_color_jitter(*, jitter: float, lighting: float, seed: int) -> Callable[..., Batch]:
    """A function ``(batch, epoch, size, drawn=None) -> batch`` that changes colors; the same batch if both are 0.

    ``drawn``: the result of ``draw`` on the device of the images, if it was drawn before.

    The recipe changes the colors of the crop: contrast scales around the crop's mean gray value, and black pixels from
    beyond the canvas change too. If the loader leaves cropping to ``augment`` (CIFAR, the resident loader), the images
    are therefore cropped to ``size`` pixels first, in two more launches, and the returned batch has no crops.
    """
    if not jitter and not lighting:
        return lambda batch, epoch, size, drawn=None: batch

    def apply(batch: Batch, epoch: int, size: int, drawn: dict[str, Tensor] | None = None) -> Batch:
        if drawn is None:
            factors = draw(batch.keys.to("cpu").numpy(), epoch, jitter=jitter, lighting=lighting, seed=seed)
            drawn = ship(factors, batch.images.device)
        images = batch.images if batch.crop is None else crop_images(batch.images, batch.crop, size)
        return batch._replace(images=color_jitter(images, **drawn), crop=None)

    return apply


def make_unclipped_augment(*, jitter: float, lighting: float, seed: int) -> Callable[..., Tensor]:
    """A function with the arguments of ``augment`` that changes colors, without clipping, before it normalizes.

    ``drawn`` as in ``make_color_jitter``.
    """

    def apply(
        images: Tensor,
        plan: Plan,
        *,
        mean: Any,
        std: Any,
        dtype: torch.dtype,
        indices: Tensor,
        step: int,
        drawn: dict[str, Tensor] | None = None,
        **more: Any,
    ) -> Tensor:
        if plan.noise is not None:
            raise InputError("`color_clip` off does not fit noise, which is clipped to [0, 1]: leave `color_clip` on.")
        after = ("partner", "lam", "box", "box_fill", "erase", "erase_noise")
        before = plan._replace(**dict.fromkeys(after))
        unit: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "dtype": torch.float32}
        pixels = augment(images, before, indices=indices, step=step, **unit, **more)
        if drawn is None:
            factors = draw(indices.to("cpu").numpy(), step, jitter=jitter, lighting=lighting, seed=seed)
            drawn = ship(factors, pixels.device)
        pixels = color_jitter_unclipped(pixels, **drawn)
        erased: Tensor | float = 0.0
        if plan.erase_noise is not None:  # the noise that augment puts into a box, drawn on black images
            black = torch.zeros_like(
                pixels.permute(0, 2, 3, 1), dtype=torch.uint8, memory_format=torch.contiguous_format
            )
            own = Plan(erase=plan.erase, erase_noise=plan.erase_noise)
            erased = augment(black, own, indices=indices, step=step, **unit, **more)
        return normalize_and_mix(pixels, plan, mean=mean, std=std, dtype=dtype, erased=erased)

    return apply


def crop_images(images: Tensor, crop: Tensor, size: int) -> Tensor:
    """Crop and resize uint8 [B, H, W, 3] to uint8 [B, size, size, 3], as a decoder does.

    ``augment`` rounds resized pixels to whole numbers, which float16 represents exactly on the 0-255 scale.
    """
    pixels = augment(images, Plan(crop=crop), mean=(0.0,) * 3, std=(1 / 255,) * 3, dtype=torch.float16, size=size)
    return pixels.permute(0, 2, 3, 1).to(torch.uint8)
