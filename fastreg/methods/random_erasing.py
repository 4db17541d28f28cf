"""Random erasing: fills a box of random area and shape. Not in the paper.

    area ~ U(0.02, 0.4) of the image,  height / width log-uniform in [0.3, 1 / 0.3],  position uniform,  10 tries

With a mode, or joined with CutMix, each image is erased after it is normalized and before it is mixed, as in timm and
torchvision: "const" fills the box with 0, the mean color, "pixel" with standard normal noise, a number per pixel and
channel. Without a mode, and not joined with CutMix, the box is filled with the mean color after mixing.

Source: Zhong et al., Random erasing data augmentation (AAAI 2020), algorithm 1; the log-uniform ratio as in torchvision
and timm (timm/data/random_erasing.py), whose modes these are.
Defaults: prob 0.5; area (0.02, 0.4), with a mode (0.02, 1/3) as in timm; ratio (0.3, 1 / 0.3); one box per sample.
Cost: no extra read; with "pixel" a normal per value of the box on a GPU, of the whole image on a CPU; not yet measured.
Example: ``methods.create("random_erasing", prob=0.25)``, ``methods.create("cutmix+random_erasing", mode="pixel")``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from fastreg.errors import InputError, unknown
from fastreg.kernels import philox
from fastreg.methods.base import Component, DrawKeys, Drawn, MethodContext, number

TRIES = 10
MODES = ("const", "pixel")


def random_erasing(
    context: MethodContext,
    *,
    prob: float = 0.5,
    area: Sequence[float] | None = None,
    ratio: Sequence[float] = (0.3, 1 / 0.3),
    mode: str | None = None,
) -> Component:
    if mode not in (None, *MODES):
        raise unknown("`mode`", str(mode), MODES)
    areas = _range("area", (0.02, 0.4 if mode is None else 1 / 3) if area is None else area, 1)
    boxes = partial(_boxes, context.seed, number("prob", prob, 0, 1), areas, _range("ratio", ratio, 100))

    def draw(keys: DrawKeys) -> Drawn:
        box = boxes(keys)
        return Drawn({"box": box, "box_fill": np.full(len(box), 2, np.int8)})

    def draw_before(keys: DrawKeys) -> Drawn:
        box = boxes(keys)
        noise = {"erase_noise": np.ones(len(box), np.float32)} if mode == "pixel" else {}
        return Drawn({"erase": box, **noise})

    writes = ("erase", "erase_noise") if mode == "pixel" else ("erase",)
    before = Component("random_erasing", draw_before, writes=writes, mean_fill=True)
    if mode is not None:
        return before
    return Component("random_erasing", draw, writes=("box", "box_fill"), mean_fill=True, before_mixing=before)


def _range(name: str, given: Sequence[float], most: float) -> tuple[float, float]:
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise InputError(f"`{name}` is {given!r}: give two numbers, the least and the largest.")
    low = number(name, given[0], 0, most, open_low=name == "ratio")
    return low, number(name, given[1], low, most)


def _boxes(
    seed: int, prob: float, areas: tuple[float, float], ratios: tuple[float, float], keys: DrawKeys
) -> np.ndarray:
    """int32 [B, 4]; empty with probability 1 - ``prob``, or if no try fits into the image."""
    high_px, wide_px = keys.size
    samples, everyone = keys.samples[:, None], np.arange(len(keys.samples))
    words = philox.words(seed, np.arange(1 + TRIES), samples, keys.epoch, "erasing_box")
    u = philox.uniform(words[:, 1:]).astype(np.float64)
    pixels = (areas[0] + (areas[1] - areas[0]) * u[..., 0]) * high_px * wide_px
    low, high = map(math.log, ratios)
    root = np.exp((u[..., 1] - 0.5) * ((high - low) / 2) + (high + low) / 4)  # square root of the ratio
    height, width = np.rint(np.sqrt(pixels) * root), np.rint(np.sqrt(pixels) / root)
    fits = (height < high_px) & (width < wide_px)
    first = fits.argmax(axis=1)
    height, width, corner = (a[everyone, first] for a in (height, width, words[:, 1:]))
    erase = fits.any(axis=1) & (philox.uniform(words[:, 0, 0]) < prob)
    height, width = np.where(erase, height, 0).astype(np.int64), np.where(erase, width, 0).astype(np.int64)
    y = philox.integers(corner[:, 2], high_px - height + 1)
    x = philox.integers(corner[:, 3], wide_px - width + 1)
    return np.stack((y, x, y + height, x + width), axis=-1).astype(np.int32)
