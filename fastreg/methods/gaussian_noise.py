"""Gaussian-noise augmentation: adds noise of random strength to some images, and clips to [0, 1].

    x' = clip(x + sigma n, 0, 1),  n ~ N(0, 1) per pixel and channel,  sigma uniform in a set, with probability prob

Source: Chun et al. 2020, section 3 ("the same type of perturbation taken from CIFAR-C"), which gives no strengths.
The five here are CIFAR-C's severities of gaussian_noise; prob is a choice of this implementation.
Defaults: sigma (.04, .06, .08, .09, .10), prob 0.5, per sample.
Cost: one normal per pixel, drawn in the augment kernel; not yet measured.
Example: ``fastreg train cifar100 --reg gaussian_noise``, ``methods.create("gaussian_noise", sigma=0.1, prob=1.0)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastreg.errors import InputError
from fastreg.kernels import philox
from fastreg.methods.base import Component, DrawKeys, Drawn, MethodContext, number

SIGMAS = (0.04, 0.06, 0.08, 0.09, 0.10)


def gaussian_noise(context: MethodContext, *, sigma: float | Sequence[float] = SIGMAS, prob: float = 0.5) -> Component:
    given = [sigma] if isinstance(sigma, int | float) else list(sigma)
    if not given:
        raise InputError("`sigma` is empty: give at least one strength.")
    levels = np.array([number("sigma", value, 0) for value in given], np.float32)
    prob = number("prob", prob, 0, 1)

    def draw(keys: DrawKeys) -> Drawn:
        words = philox.words(context.seed, 0, keys.samples, keys.epoch, "noise_level")
        level = levels[philox.integers(words[:, 0], len(levels))]
        return Drawn({"noise": np.where(philox.uniform(words[:, 1]) < prob, level, np.float32(0))})

    return Component("gaussian_noise", draw, writes=("noise",))
