"""The route of CPU tensors, sample by sample and equal to Pillow to the bit.

Pillow transforms, blends and makes gray levels. OpenCV looks levels up in tables and adds neighbors, which takes a
third of Pillow's time. Pillow stores a pixel in four bytes, and takes such bytes without a copy ("RGBX").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastreg.kernels.auto_augmentation.operations import AUTO_AUGMENT_OPERATIONS
from fastreg.kernels.dispatch import use_compiled

_FEW = 8  # images that one thread does sooner than several start

_RESAMPLE = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
Pixels = np.ndarray  # uint8 [H, W, 3], contiguous


def auto_augment_cpu(
    images: Tensor, operations: Tensor, magnitudes: Tensor, mode: int, modes: Tensor | None, fill: list[int]
) -> Tensor:
    """``auto_augment`` on checked contiguous CPU tensors, on as many threads as torch uses."""
    out = np.empty(images.shape, np.uint8)
    choices = torch.full_like(operations, mode) if modes is None else modes
    rows = [*zip(images.numpy(), operations.tolist(), magnitudes.tolist(), choices.tolist(), out)]

    def sample(row: tuple) -> None:
        pixels, numbers, strengths, filters, target = row
        for number, m, choice in zip(numbers, strengths, filters):
            pixels = _apply(pixels, AUTO_AUGMENT_OPERATIONS[number], m, choice, fill)
        target[:] = pixels

    threads = torch.get_num_threads()
    if threads == 1 or len(rows) < _FEW:
        for row in rows:
            sample(row)
    else:
        with ThreadPoolExecutor(threads) as pool:
            [*pool.map(sample, rows)]
    return torch.from_numpy(out)


def _apply(pixels: Pixels, name: str, m: float, mode: int, fill: list[int]) -> Pixels:
    if name in _TABLE:
        return _by_table(pixels, _TABLE[name](pixels, m))
    if name == "TranslateX":
        return _translate(pixels, int(m), 0, fill)
    if name == "TranslateY":
        return _translate(pixels, 0, int(m), fill)
    if name in ("ShearX", "ShearY", "Rotate"):
        return _transform(pixels, name, m, mode, fill)
    if name == "Color":
        return _blend(cv2.cvtColor(_gray(pixels), cv2.COLOR_GRAY2RGB), pixels, m)
    if name == "Sharpness":
        return _blend(_smooth(pixels), pixels, m)
    return pixels


def _auto_contrast(pixels: Pixels, m: float) -> np.ndarray:
    """PIL.ImageOps.autocontrast's."""
    low, high = np.array([cv2.minMaxLoc(cv2.extractChannel(pixels, c))[:2] for c in range(3)], np.int64).T
    scale = 255.0 / np.maximum(high - low, 1)
    stretched = _LEVELS[:, None] * scale + -low * scale
    return np.where(high > low, stretched.clip(0, 255).astype(np.int64), _LEVELS[:, None])


def _equalize(pixels: Pixels, m: float) -> np.ndarray:
    """PIL.ImageOps.equalize's."""
    channels = [cv2.calcHist([pixels], [c], None, [256], [0, 256]).ravel() for c in range(3)]
    counts = np.stack(channels, 1).astype(np.int64)
    low, high = (counts > 0).argmax(0), 255 - (counts[::-1] > 0).argmax(0)
    step = (counts.sum(0) - counts[high, range(3)]) // 255
    table = (step // 2 + counts.cumsum(0) - counts) // np.maximum(step, 1)
    return np.where((high > low) & (step > 0), table, _LEVELS[:, None])


def _contrast(pixels: Pixels, m: float) -> np.ndarray:
    gray = _gray(pixels)
    return _blended(int(cv2.sumElems(gray)[0] / gray.size + 0.5), _LEVELS, m)


def _blended(degenerate: int, levels: np.ndarray, m: float) -> np.ndarray:
    """Pillow's blend of a level with others: float32, truncated."""
    factor = np.float32(1.0 + m)
    return (np.float32(degenerate) + factor * (levels - degenerate).astype(np.float32)).clip(0, 255).astype(np.int64)


_LEVELS = np.arange(256)
# each level's successor, integers [256] or [256, 3], before the clip
_TABLE: dict[str, Callable[[Pixels, float], np.ndarray]] = {
    "Brightness": lambda pixels, m: _blended(0, _LEVELS, m),
    "Contrast": _contrast,
    "Posterize": lambda pixels, m: _LEVELS & ~(255 >> min(max(int(m), 0), 8)),
    "Solarize": lambda pixels, m: np.where(_LEVELS < m, _LEVELS, 255 - _LEVELS),
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": lambda pixels, m: 255 - _LEVELS,
    "SolarizeAdd": lambda pixels, m: np.where(_LEVELS < 128, _LEVELS + int(min(max(m, -256), 256)), _LEVELS),
}


def _by_table(pixels: Pixels, table: np.ndarray) -> Pixels:
    return cv2.LUT(pixels, table.clip(0, 255).astype(np.uint8)[None])


def _image(pixels: Pixels) -> Image.Image:
    height, width, _ = pixels.shape
    return Image.frombuffer("RGBX", (width, height), cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA), "raw", "RGBX", 0, 1)


def _gray(pixels: Pixels) -> np.ndarray:
    return np.asarray(_image(pixels).convert("L"))


def _smooth(pixels: Pixels) -> Pixels:
    """PIL.ImageFilter.SMOOTH: (neighbors + 5 v) / 13, rounded, in OpenCV's float32. The quotient is never a half."""
    smooth = pixels.copy()
    if min(pixels.shape[:2]) > 2:
        sums = cv2.boxFilter(pixels, cv2.CV_16S, (3, 3), normalize=False)
        smooth[1:-1, 1:-1] = cv2.addWeighted(sums, 1 / 13, pixels, 4 / 13, 0, dtype=cv2.CV_8U)[1:-1, 1:-1]
    return smooth


def _blend(degenerate: Pixels, pixels: Pixels, m: float) -> Pixels:
    """Pillow's blend, which takes every byte alone: here those of a gray image three times as wide."""
    height, width, _ = pixels.shape
    one, two = (Image.frombuffer("L", (3 * width, height), x, "raw", "L", 0, 1) for x in (degenerate, pixels))
    return np.asarray(Image.blend(one, two, 1.0 + m)).reshape(pixels.shape)


def _translate(pixels: Pixels, dx: int, dy: int, fill: list[int]) -> Pixels:
    """Whole pixels, so that all interpolations agree."""
    height, width, _ = pixels.shape
    if abs(dx) >= width or abs(dy) >= height:
        return np.full(pixels.shape, fill, np.uint8)
    left, top, right, bottom = max(dx, 0), max(dy, 0), max(-dx, 0), max(-dy, 0)
    seen = pixels[bottom : height - top, right : width - left]
    return cv2.copyMakeBorder(seen, top, bottom, left, right, cv2.BORDER_CONSTANT, value=fill)


def _transform(pixels: Pixels, name: str, m: float, mode: int, fill: list[int]) -> Pixels:
    """Shear or rotate. Pillow's nearest moves four bytes at once, its others take time for each."""
    if mode == 0 and use_compiled():
        from fastreg.kernels.auto_augmentation.nearest_cpu import nearest

        if (moved := nearest(pixels, name, m, fill)) is not None:
            return moved
    image = Image.fromarray(pixels) if mode else _image(pixels)
    resample, color = _RESAMPLE[mode], (*fill, 0)[: len(image.getbands())]
    if name == "Rotate":
        result = image.rotate(m, resample, fillcolor=color)
    else:
        # torchvision's way through degrees, which moves the last bits of m
        angle = math.radians(math.degrees(math.atan(m)))
        matrix = (
            (1, math.tan(angle), 0, 0, 1, 0) if name == "ShearX" else (1, 0, 0, math.sin(angle) / math.cos(angle), 1, 0)
        )
        result = image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=color)
    return np.asarray(result) if mode else cv2.cvtColor(np.asarray(result), cv2.COLOR_RGBA2RGB)
