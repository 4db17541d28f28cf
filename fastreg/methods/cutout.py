"""Cutout: fills a square of each image with the data set's mean color (zero after normalization).

    center uniform over all pixels, sides 2 (length // 2), clipped at the border

Source: DeVries and Taylor, Improved regularization of convolutional neural networks with Cutout (arXiv 1708.04552),
section 3, and its code; lengths from Yun et al., CutMix (ICCV 2019), section 4.1.
Defaults: length half of the image's shorter side (16 on CIFAR, 112 on ImageNet); one square per sample.
Cost: no extra read; not yet measured.
Example: ``fastreg train cifar100 --reg cutout``, ``methods.create("cutout", length=8)``.
"""

from __future__ import annotations

import numpy as np

from fastreg.kernels import philox
from fastreg.methods.base import Component, DrawKeys, Drawn, MethodContext, number
from fastreg.methods.boxes import clipped


def cutout(context: MethodContext, *, length: int | None = None) -> Component:
    side = None if length is None else int(number("length", length, 1))

    def draw(keys: DrawKeys) -> Drawn:
        words = philox.words(context.seed, 0, keys.samples, keys.epoch, "cutout_box")
        y, x = philox.integers(words[:, 0], keys.size[0]), philox.integers(words[:, 1], keys.size[1])
        own = min(keys.size) // 2 if side is None else side
        fill = np.full(len(keys.samples), 2, np.int8)
        return Drawn({"box": clipped(y, x, own, own, keys.size), "box_fill": fill})

    return Component("cutout", draw, writes=("box", "box_fill"), mean_fill=True)
