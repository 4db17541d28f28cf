"""defocus_blur: correlation with a disc whose edge is soft, border reflect-101, in float64.

On CUDA the correlation goes through the Fourier transform (torch's), at most 34 bytes per value alive.

Source: ImageNet-C's generation script; GaussianBlur and filter2D of OpenCV.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.pixels import border, on, quantize, unit
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import use_triton


def defocus_blur(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """``parameter``: radius of the disc, sigma of its edge."""
    kernel = disc(*parameter)
    return quantize((correlate if use_triton(images) else correlate_reference)(images, kernel))


@lru_cache(maxsize=64)
def disc(radius: float, soft: float) -> np.ndarray:
    """float32 [17, 17] or [2 radius + 1, 2 radius + 1] disc with a soft edge. The Gaussian reflects at the border of
    this array, so discs that reach it do not sum to one (1.013 and 1.011 at severities 4 and 5), as published."""
    import cv2

    reach = 8 if radius <= 8 else int(np.ceil(radius))
    line = np.arange(-reach, reach + 1)
    flat = (line[None] ** 2 + line[:, None] ** 2 <= radius**2).astype(np.float32)
    flat /= flat.sum()
    taps = 3 if radius <= 8 else 5
    return cv2.GaussianBlur(flat, (taps, taps), sigmaX=soft)


def correlate_reference(images: Tensor, kernel: np.ndarray) -> Tensor:
    """float64 [B, n, n, 3] on the 0-1 scale: uint8 images correlated with ``kernel`` by OpenCV, on the CPU."""
    import cv2

    return torch.from_numpy(np.stack([cv2.filter2D(image, -1, kernel) for image in unit(images).numpy()]))


def correlate(images: Tensor, kernel: np.ndarray) -> Tensor:
    """``correlate_reference`` by the Fourier transform, for all images at once."""
    reach = len(kernel) // 2
    n = images.shape[1]
    side = next(size for size in range(n + 2 * reach, 4 * (n + 2 * reach)) if _is_smooth(size))
    # The border fills the transform's padding too: values beyond the lower right border are never read.
    index = on(border(n, reach, side - n - reach, "mirror101"), images.device)
    x = unit(images.permute(0, 3, 1, 2).index_select(2, index).index_select(3, index))
    spectrum = torch.fft.rfft2(on(kernel, x.device).double(), s=(side, side)).conj()
    blurred = torch.fft.irfft2(torch.fft.rfft2(x).mul_(spectrum), s=(side, side))[..., :n, :n]
    return blurred.permute(0, 2, 3, 1)


def _is_smooth(size: int) -> bool:
    """Whether a Fourier transform of this size is cheap: no prime factor above 5."""
    for factor in (2, 3, 5):
        while size % factor == 0:
            size //= factor
    return size == 1


ROWS = (Corruption("defocus_blur", defocus_blur),)
