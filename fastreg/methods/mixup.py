"""Mixup: blends each image and label with a partner's.

    x' = lam x + (1 - lam) x_partner,  loss = lam CE(y) + (1 - lam) CE(y_partner),  lam ~ Beta(alpha, alpha)

One lam per batch as in the authors' code, or one per sample with ``scope="sample"``. Blending
normalized images or pixels gives the same result.

Source: Zhang et al., mixup: beyond empirical risk minimization (ICLR 2018), section 2; alpha from Yun et al., CutMix
(ICCV 2019), section 4.1.
Defaults: alpha 1.0, prob 1.0 on CIFAR and ImageNet alike.
Cost: each image is read twice by the augment kernel; not yet measured.
Example: ``fastreg train imagenet --reg mixup --ls 0.1``, ``methods.create("mixup", alpha=0.2)``.
"""

from __future__ import annotations

import numpy as np

from fastreg.kernels import philox
from fastreg.methods.base import Component, DrawKeys, Drawn, MethodContext, number, partners, per_sample


def mixup(context: MethodContext, *, alpha: float = 1.0, prob: float = 1.0) -> Component:
    alpha, prob = number("alpha", alpha, 0, open_low=True), number("prob", prob, 0, 1)

    def draw(keys: DrawKeys) -> Drawn:
        lam = mixing_weight(context, keys, alpha, prob)
        return Drawn({"partner": partners(context, keys, "mixup_partner"), "lam": lam}, lam)

    return Component("mixup", draw, writes=("partner", "lam"))


def mixing_weight(context: MethodContext, keys: DrawKeys, alpha: float, prob: float) -> np.ndarray:
    """lam, float32 [B]; 1 with probability 1 - ``prob``."""
    sample, step = keys.owner(context.scope)
    lam = np.atleast_1d(philox.beta(context.seed, alpha, sample, step, "mixup_lambda"))
    if prob < 1:
        chance = philox.uniform(philox.words(context.seed, 0, sample, step, "mixup_apply")[..., 0])
        lam = np.where(chance < prob, lam, 1.0)
    return per_sample(lam, keys, np.float32)
