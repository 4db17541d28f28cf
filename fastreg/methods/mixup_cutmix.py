"""Mixup and CutMix together: one of the two per batch, at random (per sample with ``scope="sample"``).

Source: The modules mixup.py and cutmix.py; ``switch_prob`` as in timm.
Defaults: alpha 1.0 and prob 1.0 for both; switch_prob, the probability of CutMix, 0.5.
Cost: that of Mixup or CutMix.
Example: ``fastreg train imagenet --reg mixup+cutmix``, ``methods.create("mixup+cutmix", mixup_alpha=0.2)``.
"""

from __future__ import annotations

import numpy as np

from fastreg.kernels import philox
from fastreg.methods.base import Component, DrawKeys, Drawn, MethodContext, number, partners, per_sample
from fastreg.methods.cutmix import mixing_box
from fastreg.methods.mixup import mixing_weight


def mixup_cutmix(
    context: MethodContext,
    *,
    alpha: float = 1.0,
    mixup_alpha: float | None = None,
    cutmix_alpha: float | None = None,
    prob: float = 1.0,
    mixup_prob: float | None = None,
    cutmix_prob: float | None = None,
    switch_prob: float = 0.5,
) -> Component:
    """``alpha`` and ``prob`` are for both methods, ``mixup_*`` and ``cutmix_*`` for one method."""
    alphas = [
        number(flag, alpha if own is None else own, 0, open_low=True)
        for flag, own in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha))
    ]
    probs = [
        number(flag, prob if own is None else own, 0, 1)
        for flag, own in (("mixup_prob", mixup_prob), ("cutmix_prob", cutmix_prob))
    ]
    blended = 1 - number("switch_prob", switch_prob, 0, 1)

    def draw(keys: DrawKeys) -> Drawn:
        sample, step = keys.owner(context.scope)
        chance = philox.uniform(np.atleast_2d(philox.words(context.seed, 0, sample, step, "mix_choice"))[:, 0])
        blend = per_sample(chance < blended, keys, bool)
        lam = mixing_weight(context, keys, alphas[0], probs[0])
        box, weight = mixing_box(context, keys, alphas[1], probs[1])
        plan = {
            "partner": partners(context, keys, "mixup_partner"),
            "lam": np.where(blend, lam, np.float32(1)),
            "box": np.where(blend[:, None], np.int32(0), box),
            "box_fill": np.zeros(len(keys.samples), np.int8),
        }
        return Drawn(plan, np.where(blend, lam, weight))

    return Component("mixup+cutmix", draw, writes=("partner", "lam", "box", "box_fill"))
