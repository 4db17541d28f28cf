"""Stochastic depth: drops residual branches, per sample. Not in the paper.

    F(x) keep / p_l,  keep ~ Bernoulli(p_l) per layer and sample,  p_l = 1 - l / L rate,  l = 1 .. L

Source: Huang et al., Deep networks with stochastic depth (ECCV 2016), section 3; per sample and rescaled in training,
as in timm and torchvision.
Defaults: rate 0.1.
Cost: one [B, L] tensor of random numbers per step and one more pass over each branch; not yet measured.
Example: ``methods.create("stochastic_depth", rate=0.05)``; the model is created with ``**method.model``.
"""

from __future__ import annotations

from fastreg.kernels import philox
from fastreg.methods.base import Arrays, Component, DrawKeys, MethodContext, number


def stochastic_depth(context: MethodContext, *, rate: float = 0.1) -> Component:
    rate = number("rate", rate, 0, 0.999)

    def fields(keys: DrawKeys, layers: int) -> Arrays:
        return {"chance": philox.field(philox.uniform, context.seed, keys.samples, layers, keys.epoch, "depth_keep")}

    return Component("stochastic_depth", fields=fields, model={"stochastic_depth": rate})
