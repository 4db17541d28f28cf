"""Cross-entropy with class weights or float targets on the compiled CPU route, within 1e-6 of float64.

Each row is read once for its maximum and once, from cache, for all sums; backward is one pass. Bytes per logit in
float32: 8 forward, 8 backward, 4 more each for float targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run
from fastreg.kernels.cross_entropy.cpu import FLOATS, INTEGERS, array_or, flat, pair_weights
from fastreg.kernels.cross_entropy.reference import MEAN, NONE
from fastreg.kernels.cross_entropy.weighted_reference import WeightedTargets
from fastreg.kernels.vector_math import exp_to_one

PASS = 0.7  # nanoseconds per logit of one pass with its exp on one thread, roughly


def _arrays(targets: WeightedTargets) -> tuple[Any, ...]:
    dense = FLOATS if targets.dense is None else flat(targets.dense.float())
    labels = (array_or(targets.a, INTEGERS), array_or(targets.b, INTEGERS), array_or(targets.lam, FLOATS))
    v, eps = array_or(targets.class_weight, FLOATS), array_or(targets.eps, FLOATS)
    return *labels, dense, v, eps, np.float32(targets.smoothing)


def forward_cpu(logits: Tensor, targets: WeightedTargets, reduction: int) -> tuple[Tensor, Tensor, Tensor]:
    """``forward_reference`` on contiguous arguments."""
    B, C = logits.shape
    z = logits.float()
    results, rows = z.new_empty(2, B), z.new_empty(2, B)
    arrays = (as_array(results), as_array(rows), flat(z), as_array(z.amax(1)))
    run(_losses, B, *arrays, C, *_arrays(targets), cost=B * C * PASS)
    loss, divisor = results
    if reduction == NONE:
        return loss, rows, z.new_empty(0)
    total = divisor.sum() if reduction == MEAN else torch.ones(())
    return loss.sum() / total, rows, total


def backward_cpu(
    grad: Tensor, logits: Tensor, rows: Tensor, total: Tensor, targets: WeightedTargets, reduction: int
) -> Tensor:
    """``backward_reference`` on contiguous arguments."""
    B, C = logits.shape
    dz = torch.empty(B, C)
    g = flat(grad if reduction == NONE else grad / total)
    run(_gradients, B, flat(dz), flat(logits.float()), as_array(rows), C, *_arrays(targets), g, cost=B * C * PASS)
    return dz.to(logits.dtype)


@compiled
def _label_weights(i, C, a, b, lam, v, e):
    """Row i's labels, the weights d of a and of b without smoothing, w and the divisor of the mean."""
    one, two, wa, wb, poison = pair_weights(i, a, b, lam, C)
    share_a = wa * v[one] if len(v) else wa
    share_b = wb * v[two] if len(v) else wb
    keep = np.float32(1) - e
    return one, two, keep * share_a, keep * share_b, wa + wb, poison, share_a + share_b


@compiled(fastmath=["reassoc"])
def _losses(first, last, results, rows, z, top, C, a, b, lam, dense, v, eps, smoothing):
    for i in range(first, last):
        e, start = eps[i] if len(eps) else smoothing, np.uint64(i * C)
        m = top[i] if abs(top[i]) != np.float32(np.inf) else np.float32(0)
        exps, scale, products = np.float32(0), np.float32(0), np.float32(0)
        w, divisor = np.float32(1), np.float32(1)
        if len(dense):
            keep, share = np.float32(1) - e, e / np.float32(C)
            for k in range(np.uint64(C)):
                x = z[start + k] - m  # the sums then have no digits to lose
                d = dense[start + k] * keep + share
                d = v[k] * d if len(v) else d
                product = d * x
                exps += exp_to_one(x)
                scale += d
                products += product if d != 0 else np.float32(0)
        else:
            one, two, da, db, w, poison, divisor = _label_weights(i, C, a, b, lam, v, e)
            rest = w * e / np.float32(C)
            for k in range(np.uint64(C)):
                x = z[start + k] - m
                d = v[k] * rest
                product = d * x
                exps += exp_to_one(x)
                scale += d
                products += product if d != 0 else np.float32(0)
            scale += da + db
            products += da * (z[start + np.uint64(one)] - m) if da != 0 else np.float32(0)
            products += db * (z[start + np.uint64(two)] - m) if db != 0 else np.float32(0)
            w += poison
        log = np.float32(np.log(exps)) if top[i] != np.float32(np.inf) else np.float32(np.inf)
        rows[0, i], rows[1, i] = m + log, scale
        results[0, i] = scale * log - products + w * np.float32(0) if w != 0 else np.float32(0)  # a NaN of w stays
        results[1, i] = divisor


@compiled
def _gradients(first, last, dz, z, rows, C, a, b, lam, dense, v, eps, smoothing, g):
    for i in range(first, last):
        e, start = eps[i] if len(eps) else smoothing, np.uint64(i * C)
        upstream, lse, scale = g[i] if len(g) > 1 else g[0], rows[0, i], rows[1, i]
        if len(dense):
            keep, share = np.float32(1) - e, e / np.float32(C)
            for k in range(np.uint64(C)):
                d = dense[start + k] * keep + share
                d = v[k] * d if len(v) else d
                dz[start + k] = (scale * exp_to_one(z[start + k] - lse) - d) * upstream
            continue
        one, two, da, db, w, poison, _ = _label_weights(i, C, a, b, lam, v, e)
        if w == 0:
            for k in range(np.uint64(C)):
                dz[start + k] = poison
            continue
        rest, nothing = w * e / np.float32(C), (w + poison) * np.float32(0)
        for k in range(np.uint64(C)):
            dz[start + k] = (scale * exp_to_one(z[start + k] - lse) - v[k] * rest + nothing) * upstream
        dz[start + np.uint64(one)] -= da * upstream
        dz[start + np.uint64(two)] -= db * upstream
