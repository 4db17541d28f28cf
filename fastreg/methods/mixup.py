"""Mixup: blends each picture, and its label, with a partner's.

    x' = lam x + (1 - lam) x_partner,  loss = lam CE(y) + (1 - lam) CE(y_partner),  lam ~ Beta(alpha, alpha)

One lam per batch as in the authors' code, or one per sample with ``scope="sample"``. The blend is of normalised
pictures, which equals that of pixels.

Source: Zhang et al., mixup: beyond empirical risk minimization (ICLR 2018), section 2; alpha from Yun et al., CutMix
(ICCV 2019), section 4.1.
Defaults: alpha 1.0, prob 1.0 on CIFAR and ImageNet alike.
Cost: each picture is read twice by the augment kernel; not yet measured.
Example: ``fastreg train imagenet --reg mixup --ls 0.1``, ``methods.create("mixup", alpha=0.2)``.
"""

from __future__ import annotations

import numpy as np

from fastreg.kernels import philox
from fastreg.methods.base import Arrays, Keys, Part, Setting, number, partners, per_sample


def mixup(setting: Setting, *, alpha: float = 1.0, prob: float = 1.0) -> Part:
    alpha, prob = number("alpha", alpha, 0, open_low=True), number("prob", prob, 0, 1)

    def draw(keys: Keys) -> Arrays:
        lam = mixing_weight(setting, keys, alpha, prob)
        return {"partner": partners(setting, keys, "mixup_partner"), "lam": lam, "weight": lam}

    return Part("mixup", draw)


def mixing_weight(setting: Setting, keys: Keys, alpha: float, prob: float) -> np.ndarray:
    """lam, float32 [B]; 1 where the draw says not to mix."""
    sample, step = keys.owner(setting.scope)
    lam = np.atleast_1d(philox.beta(setting.seed, alpha, sample, step, "mixup_lambda"))
    if prob < 1:
        chance = philox.uniform(philox.words(setting.seed, 0, sample, step, "mixup_apply")[..., 0])
        lam = np.where(chance < prob, lam, 1.0)
    return per_sample(lam, keys, np.float32)
