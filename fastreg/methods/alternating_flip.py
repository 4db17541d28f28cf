"""Alternating flip: each image is mirrored in every other epoch. Not in the paper.

    flip = coin xor (the epoch is odd),  coin ~ Bernoulli(1/2), one per sample for the whole run

Two consecutive epochs show each image once as it is and once mirrored.

Source: Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU (arXiv 2404.00498), section 3.
Defaults: no parameters.
Cost: none.
Example: ``fastreg train cifar10 --reg alternating_flip``.
"""

from __future__ import annotations

from fastreg.kernels import philox
from fastreg.methods.base import Component, DrawKeys, Drawn, MethodContext


def alternating_flip(context: MethodContext) -> Component:
    def draw(keys: DrawKeys) -> Drawn:
        coin = philox.uniform(philox.words(context.seed, 0, keys.samples, 0, "flip")[:, 0]) < 0.5
        return Drawn({"flip": coin ^ (keys.epoch % 2 == 1)})

    return Component("alternating_flip", draw, writes=("flip",), flip=False)
