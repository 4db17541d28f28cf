"""gaussian_blur, defocus_blur, glass_blur, motion_blur, zoom_blur.

Sources: ImageNet-C's generation script; scipy.ndimage, OpenCV and ImageMagick 6 for the filters it calls.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions import filter_kernels, filters
from fastreg.kernels.corruptions.filters import quantise, unit
from fastreg.kernels.dispatch import use_triton


def gaussian_blur(images: Tensor, sigma: float, fields: dict) -> Tensor:
    """Gaussian filter, edge clamped."""
    return filters.gaussian_levels(images, float(sigma))


@lru_cache(maxsize=64)
def disc(radius: float, soft: float) -> np.ndarray:
    """float32 [17,17] or [2r + 1, 2r + 1] disc with a soft edge. It sums to one only while it keeps off the border:
    there OpenCV's Gaussian reflects, and the published code leaves it so (1.013 and 1.011 at severities 4 and 5)."""
    import cv2

    reach = 8 if radius <= 8 else int(np.ceil(radius))
    line = np.arange(-reach, reach + 1)
    flat = (line[None] ** 2 + line[:, None] ** 2 <= radius**2).astype(np.float32)
    flat /= flat.sum()
    taps = 3 if radius <= 8 else 5
    return cv2.GaussianBlur(flat, (taps, taps), sigmaX=soft)


def defocus_blur(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """Correlation with a soft disc, border reflect-101, in float64; large discs through the Fourier transform."""
    kernel = disc(*parameter)
    return quantise((correlated if use_triton(images) else correlated_by_opencv)(images, kernel))


def correlated_by_opencv(images: Tensor, kernel: np.ndarray) -> Tensor:
    """uint8 [B,n,n,3] as numbers in [0,1], float64, correlated with ``kernel`` on the CPU."""
    import cv2

    return torch.from_numpy(np.stack([cv2.filter2D(image, -1, kernel) for image in unit(images).numpy()]))


def correlated(images: Tensor, kernel: np.ndarray) -> Tensor:
    """What ``correlated_by_opencv`` gives, by the Fourier transform, for all images at once."""
    reach = len(kernel) // 2
    n = images.shape[1]
    side = next(size for size in range(n + 2 * reach, 4 * (n + 2 * reach)) if _smooth(size))
    # what lies beyond the lower right border is never read: the transform's own padding, done with the border's
    index = filters.on(filters.border(n, reach, side - n - reach, "mirror101"), images.device)
    x = unit(images.permute(0, 3, 1, 2).index_select(2, index).index_select(3, index))
    spectrum = torch.fft.rfft2(filters.on(kernel, x.device).double(), s=(side, side)).conj()
    blurred = torch.fft.irfft2(torch.fft.rfft2(x).mul_(spectrum), s=(side, side))[..., :n, :n]
    return blurred.permute(0, 2, 3, 1)


def _smooth(size: int) -> bool:
    """Whether the Fourier transform of this size is cheap: no prime factor above 5."""
    for factor in (2, 3, 5):
        while size % factor == 0:
            size //= factor
    return size == 1


def glass_blur(images: Tensor, parameter: tuple[float, int, int], fields: dict) -> Tensor:
    """Blur, move pixels about by up to ``reach``, blur. The published raster loops, from the lower right corner up,
    *copy* the pixel they meant to swap; so each pixel is written once, and the result is a gather."""
    sigma, reach, _ = parameter
    levels = filters.gaussian_levels(images, float(sigma))
    shuffle = filter_kernels.glass if use_triton(levels) else plain_glass
    return filters.gaussian_levels(shuffle(levels, fields["dx"], fields["dy"], reach), float(sigma))


def plain_glass(levels: Tensor, dx: Tensor, dy: Tensor, reach: int) -> Tensor:
    """uint8 [B,n,n,3] after all passes of the shuffle with shifts ``dx``, ``dy`` [B,passes,n,n]."""
    batch, n, _, channels = levels.shape
    start = torch.arange(batch, device=levels.device)[:, None] * (n * n)
    flat = levels.view(-1, channels)
    for turn in range(dx.shape[1]):
        flat = flat.index_select(0, (_glass_source(dx[:, turn], dy[:, turn], reach) + start).view(-1))
    return flat.view(levels.shape)


def _glass_source(dx: Tensor, dy: Tensor, reach: int) -> Tensor:
    """Flat index int64 [B, n*n] of the pixel whose value each pixel ends up with after one pass.

    A pixel p copies its target q = p + (dx, dy). A processed q below p, or to its right in the same row, has been
    written before, so p gets what q got: chains, resolved by pointer doubling.
    """
    batch, n, _ = dx.shape
    line = torch.arange(n, device=dx.device)
    inside = (line > reach) & (line <= n - reach)
    processed = inside[:, None] & inside[None]
    dx, dy = (torch.where(processed, d, 0).long() for d in (dx, dy))
    place = line[:, None] * n + line[None]
    source = (place + dy * n + dx).view(batch, -1)
    written = (dy > 0) | ((dy == 0) & (dx > 0))
    follow = written.view(batch, -1) & processed.view(1, -1).expand(batch, -1).gather(1, source)
    if reach == 1:  # dx and dy are -1 or 0: never a pixel that was written before
        return source
    # A chain moves on in raster order, so it is shorter than n * n pixels; random ones need five doublings at most.
    for _ in range(max(1, (n * n).bit_length())):
        source, follow = (
            torch.where(follow, source.gather(1, source), source),
            follow & follow.gather(1, source),
        )
        if source.device.type == "cpu" and not follow.any():
            break
    return source


def motion_blur(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """One-sided Gaussian along a ray, as ImageMagick."""
    radius, sigma = parameter
    return filters.motion_blur(images, fields["angle"], radius, sigma)


def zoom_factors(parameter: tuple[float, float]) -> list[float]:
    """The published ``arange(1, end, step)``; rounding lets 1.11 into the first set, which so has 12 factors."""
    end, step = parameter
    return np.arange(1, end, step).tolist()


def zoom_blur(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """Mean of the image and its zooms, in float32 as published."""
    x = unit(images, torch.float32)
    grids = [filters.zoom_grid(x.shape[1], zoom) for zoom in zoom_factors(parameter)]
    left, weight = (np.stack(part) for part in zip(*grids))
    zoom = filter_kernels.zoom if use_triton(x) else plain_zoom
    return zoom(x, filters.on(left, x.device), filters.on(weight, x.device).float())


def plain_zoom(x: Tensor, left: Tensor, weight: Tensor) -> Tensor:
    """Mean of float32 [B,n,n,3] and its zooms as uint8 levels; ``left`` int64, ``weight`` float32 [Z,n] say where each
    output row and column reads."""
    total = torch.zeros_like(x)
    for index, t in zip(left, weight):
        total.add_(filters.zoomed(x, index, t))
    return quantise((x + total).div_(len(left) + 1))
