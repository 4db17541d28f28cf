"""CutMix: pastes a box of a partner's image, and weights the labels by area.

    lam ~ Beta(alpha, alpha); box: int(H sqrt(1 - lam)) x int(W sqrt(1 - lam)), uniform center, clipped at the border
    lam' = 1 - area / (H W),  loss = lam' CE(y) + (1 - lam') CE(y_partner)

One box per batch as in the authors' code, or one per sample with ``scope="sample"``.

Source: Yun et al., CutMix (ICCV 2019), section 3 and algorithm A1, and its code for rounding and clipping.
Defaults: alpha 1.0; prob (of cutting a batch or sample) 0.5 on CIFAR, 1.0 on ImageNet.
Cost: every pixel is read once, from one image or the other; not yet measured.
Example: ``fastreg train cifar100 --reg cutmix``, ``methods.create("cutmix", scope="sample", prob=0.5)``.
"""

from __future__ import annotations

import numpy as np

from fastreg.kernels import philox
from fastreg.methods.base import Component, DrawKeys, Drawn, MethodContext, number, partners, per_sample
from fastreg.methods.boxes import area, clipped


def cutmix(context: MethodContext, *, alpha: float = 1.0, prob: float | None = None) -> Component:
    alpha = number("alpha", alpha, 0, open_low=True)
    prob = number("prob", (0.5 if context.cifar else 1.0) if prob is None else prob, 0, 1)

    def draw(keys: DrawKeys) -> Drawn:
        box, weight = mixing_box(context, keys, alpha, prob)
        fill = np.zeros(len(keys.samples), np.int8)
        plan = {"partner": partners(context, keys, "cutmix_partner"), "box": box, "box_fill": fill}
        return Drawn(plan, weight)

    return Component("cutmix", draw, writes=("partner", "box", "box_fill"))


def mixing_box(context: MethodContext, keys: DrawKeys, alpha: float, prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes int32 [B, 4] and lam' float32 [B]; an empty box and 1 with probability 1 - ``prob``."""
    height, width = keys.size
    sample, step = keys.owner(context.scope)
    side = np.sqrt(1 - np.atleast_1d(philox.beta(context.seed, alpha, sample, step, "cutmix_lambda")))
    center = np.atleast_2d(philox.words(context.seed, 0, sample, step, "cutmix_box"))
    y, x = philox.integers(center[:, 0], height), philox.integers(center[:, 1], width)
    box = clipped(y, x, (height * side).astype(np.int64), (width * side).astype(np.int64), keys.size)
    if prob < 1:
        chance = philox.uniform(np.atleast_2d(philox.words(context.seed, 0, sample, step, "cutmix_apply"))[:, :1])
        box = np.where(chance < prob, box, 0)
    box = per_sample(box, keys, np.int32)
    return box, (1 - area(box) / (height * width)).astype(np.float32)
