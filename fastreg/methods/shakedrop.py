"""ShakeDrop: multiplies residual branches and their gradients by random factors.

    forward  F(x) (b + a - b a)        b ~ Bernoulli(p_l), one per layer and global batch
    backward grad (b + beta - b beta)  a ~ U(-1, 1), beta ~ U(0, 1), one per layer and sample
    evaluation F(x) p_l                p_l = 1 - l / L (1 - 0.5), l = 1 .. L

The method draws the numbers; the model applies them after the last norm of each branch (models/branch.py).

Source: Yamada et al., ShakeDrop regularization for deep residual learning (arXiv 1802.02375), section 3; levels as in
the authors' code.
Defaults: p_L 0.5; L 66 on CIFAR (PyramidNet-200), 16 on ImageNet (ResNet-50), else ``layers=branch_layers(model)``;
gates "batch" (one b for the global batch) or "share" (one for each micro-batch, as the authors' code on several GPUs).
Cost: two [B, L] tensors of random numbers per step and one more pass over each branch; not yet measured.
Example: ``fastreg train cifar100 --reg cutmix+shakedrop``.
"""

from __future__ import annotations

import numpy as np

from fastreg.errors import unknown
from fastreg.kernels import philox
from fastreg.methods.base import Arrays, Component, DrawKeys, MethodContext
from fastreg.models.branch import survival

GATES = ("batch", "share")


def shakedrop(context: MethodContext, *, gates: str = "batch") -> Component:
    if gates not in GATES:
        raise unknown("`gates`", str(gates), GATES)

    def fields(keys: DrawKeys, layers: int) -> Arrays:
        shares = gates == "share" and keys.batch_size > 0
        owner = keys.samples[:: keys.batch_size, None] + 1 if shares else 0  # a share's first sample
        words = philox.words(context.seed, np.arange(layers), owner, keys.steps[:, None], "shakedrop_gate")
        chance = philox.uniform(words[..., 0])
        alpha, beta = (
            philox.field(philox.uniform, context.seed, keys.samples, layers, keys.epoch, f"shakedrop_{name}")
            for name in ("alpha", "beta")
        )
        gate = chance < np.array([survival(i, layers, 0.5) for i in range(layers)])
        return {"gate": gate.astype(np.float32).ravel(), "alpha": 2 * alpha - 1, "beta": beta}

    return Component("shakedrop", fields=fields, model={"shakedrop": True}, original={"gates": "share"})
