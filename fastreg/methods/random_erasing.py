"""Random erasing: fills a box of random area and shape with the data set's mean color. Not in the paper.

    area ~ U(0.02, 0.4) of the image,  height / width log-uniform in [0.3, 1 / 0.3],  position uniform,  10 tries

Source: Zhong et al., Random erasing data augmentation (AAAI 2020), algorithm 1; the log-uniform ratio as in torchvision
and timm, whose "const" mode this fill is.
Defaults: prob 0.5, area (0.02, 0.4); one box per sample.
Cost: no extra read; not yet measured.
Example: ``methods.create("random_erasing", prob=0.25)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastreg.kernels import philox
from fastreg.methods.base import Component, DrawKeys, Drawn, MethodContext, number

TRIES = 10


def random_erasing(context: MethodContext, *, prob: float = 0.5, area: Sequence[float] = (0.02, 0.4)) -> Component:
    prob = number("prob", prob, 0, 1)
    low = number("area", area[0], 0, 1)
    high = number("area", area[1], low, 1)

    def draw(keys: DrawKeys) -> Drawn:
        high_px, wide_px = keys.size
        samples, everyone = keys.samples[:, None], np.arange(len(keys.samples))
        words = philox.words(context.seed, np.arange(1 + TRIES), samples, keys.epoch, "erasing_box")
        u = philox.uniform(words[:, 1:]).astype(np.float64)
        pixels = (low + (high - low) * u[..., 0]) * high_px * wide_px
        root = np.exp((u[..., 1] - 0.5) * math.log(1 / 0.3))  # square root of the ratio
        height, width = np.rint(np.sqrt(pixels) * root), np.rint(np.sqrt(pixels) / root)
        fits = (height < high_px) & (width < wide_px)
        first = fits.argmax(axis=1)
        height, width, corner = (a[everyone, first] for a in (height, width, words[:, 1:]))
        erase = fits.any(axis=1) & (philox.uniform(words[:, 0, 0]) < prob)
        height, width = np.where(erase, height, 0).astype(np.int64), np.where(erase, width, 0).astype(np.int64)
        y = philox.integers(corner[:, 2], high_px - height + 1)
        x = philox.integers(corner[:, 3], wide_px - width + 1)
        box = np.stack((y, x, y + height, x + width), axis=-1).astype(np.int32)
        return Drawn({"box": box, "box_fill": np.full(len(box), 2, np.int8)})

    return Component("random_erasing", draw, writes=("box", "box_fill"), mean_fill=True)
