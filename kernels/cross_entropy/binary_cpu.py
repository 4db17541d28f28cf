"""Binary cross-entropy on the compiled CPU route: the formulas of ``binary_reference.py``, with the same bits.

As in ``cpu.py``, exp, log1p and sums are torch's own, in place. Bytes per logit in float32: 40 forward, 28 backward, 4
more each for float targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run
from fastreg.kernels.cross_entropy.binary_reference import BinaryTargets, Shape
from fastreg.kernels.cross_entropy.cpu import FLOATS, INTEGERS, PASS, array_or, flat, pair_weights
from fastreg.kernels.cross_entropy.reference import IGNORE, MEAN, NONE


def _arrays(targets: BinaryTargets) -> tuple[Any, ...]:
    dense = FLOATS if targets.dense is None else flat(targets.dense.float())
    labels = (array_or(targets.a, INTEGERS), array_or(targets.b, INTEGERS), array_or(targets.lam, FLOATS))
    # torch rounds numbers to the dtype of the tensors that they meet, after float64 arithmetic among themselves
    smoothing = np.float64(targets.smoothing)
    threshold = np.float32(0 if targets.threshold is None else targets.threshold)
    return *labels, dense, array_or(targets.class_weight, FLOATS), smoothing, targets.threshold is not None, threshold


def forward_cpu(logits: Tensor, targets: BinaryTargets, shape: Shape) -> tuple[Tensor, Tensor]:
    """``forward_reference`` on contiguous arguments."""
    B, C = logits.shape
    z = logits.float()
    terms, w = z.abs().neg_().exp_().log1p_(), z.new_empty(B)
    run(_terms, B, flat(terms), as_array(w), flat(z), C, *_arrays(targets), cost=3 * B * C * PASS)
    if shape.reduction == NONE:
        return terms.sum(dim=1) if shape.sum_classes else terms, terms.new_empty(0)
    total = torch.ones(())
    if shape.reduction == MEAN:
        total = w.sum() * (1 if shape.sum_classes else C)
    return terms.sum() / total, total


def backward_cpu(grad: Tensor, logits: Tensor, total: Tensor, targets: BinaryTargets, shape: Shape) -> Tensor:
    """``backward_reference`` on contiguous arguments."""
    B, C = logits.shape
    z = logits.float()
    dz = z.abs().neg_().exp_()
    g = flat(grad if shape.reduction == NONE else grad / total)
    run(_gradients, B, flat(dz), flat(z), C, *_arrays(targets), g, cost=3 * B * C * PASS)
    return dz.to(logits.dtype)


@compiled
def _targets(t, i, C, a, b, lam, dense, smoothing, threshold, limit):
    """Row i of t, before its threshold; returns the row's weight."""
    width = np.uint64(C)
    if len(dense):
        w, start = np.float32(1), np.uint64(i * C)
        for k in range(width):
            t[k] = dense[start + k]
    else:
        one, two, wa, wb, poison = pair_weights(i, a, b, lam, C)
        w = wa + wb + poison
        no_a, no_b = a[i] == IGNORE, (b[i] if len(b) else a[i]) == IGNORE
        share_a = np.float32(1) if no_b and not no_a else wa
        share_b = np.float32(1) if no_a and not no_b else wb
        share_a = np.float32(0) if no_a else share_a
        share_b = np.float32(0) if no_b else share_b
        base, keep = np.float32(smoothing / C), np.float32(1 - smoothing)
        for k in range(width):
            t[k] = base
        both = share_a + share_b
        t[one] = keep * (both if one == two else share_a) + base
        t[two] = keep * (both if one == two else share_b) + base
    if threshold:
        for k in range(width):
            over = np.float32(1) if t[k] > limit else np.float32(0)
            t[k] = over if t[k] == t[k] else t[k]
    return w


@compiled
def _terms(first, last, terms, total, z, C, a, b, lam, dense, v, smoothing, threshold, limit):
    """From log1p(exp(-|z|)) to the terms, in place."""
    t = np.empty(C, np.float32)
    for i in range(first, last):
        w = _targets(t, i, C, a, b, lam, dense, smoothing, threshold, limit)
        total[i] = w
        start = np.uint64(i * C)
        for k in range(np.uint64(C)):
            x = z[start + k]
            rest = np.float32(1) - t[k] if x > 0 else t[k]
            value = terms[start + k] + (rest * abs(x) if rest != 0 else np.float32(0))
            value = value * v[k] if len(v) else value
            terms[start + k] = value * w if w != 0 else np.float32(0)


@compiled
def _gradients(first, last, dz, z, C, a, b, lam, dense, v, smoothing, threshold, limit, g):
    """From exp(-|z|) to the gradient, in place."""
    t, each = np.empty(C, np.float32), len(g) == len(dz)
    for i in range(first, last):
        w = _targets(t, i, C, a, b, lam, dense, smoothing, threshold, limit)
        start = np.uint64(i * C)
        upstream = g[0] if len(g) == 1 or each else g[i]
        for k in range(np.uint64(C)):
            e = dz[start + k]
            tail = e / (np.float32(1) + e)
            value = (np.float32(1) - t[k]) - tail if z[start + k] > 0 else tail - t[k]
            value = value * v[k] if len(v) else value
            value = value * w * (g[start + k] if each else upstream)
            dz[start + k] = value if w != 0 else np.float32(0)
