"""Binary cross-entropy on the compiled CPU route, within 1e-6 of float64.

One pass forward, one backward. Bytes per logit in float32: 4 forward, 8 backward, 4 more each for float targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run
from fastreg.kernels.cross_entropy.binary_reference import BinaryTargets, Shape
from fastreg.kernels.cross_entropy.cpu import FLOATS, INTEGERS, array_or, flat, pair_weights
from fastreg.kernels.cross_entropy.reference import IGNORE, MEAN, NONE
from fastreg.kernels.vector_math import exp_to_one, log1p_to_one

PASS = 2.0  # nanoseconds per logit of one pass on one thread, roughly


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
    each = shape.reduction == NONE and not shape.sum_classes
    terms, rows, w = z.new_empty(B * C if each else 0), z.new_empty(B), z.new_empty(B)
    outputs = (as_array(terms), as_array(rows), as_array(w))
    run(_losses, B, *outputs, flat(z), C, *_arrays(targets), cost=B * C * PASS)
    if shape.reduction == NONE:
        return terms.view(B, C) if each else rows, z.new_empty(0)
    total = torch.ones(())
    if shape.reduction == MEAN:
        total = w.sum() * (1 if shape.sum_classes else C)
    return rows.sum() / total, total


def backward_cpu(grad: Tensor, logits: Tensor, total: Tensor, targets: BinaryTargets, shape: Shape) -> Tensor:
    """``backward_reference`` on contiguous arguments."""
    B, C = logits.shape
    dz = torch.empty(B, C)
    g = flat(grad if shape.reduction == NONE else grad / total)
    run(_gradients, B, flat(dz), flat(logits.float()), C, *_arrays(targets), g, cost=B * C * PASS)
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


@compiled(fastmath=["reassoc"])
def _losses(first, last, terms, rows, total, z, C, a, b, lam, dense, v, smoothing, threshold, limit):
    t = np.empty(C, np.float32)
    for i in range(first, last):
        w = _targets(t, i, C, a, b, lam, dense, smoothing, threshold, limit)
        start, row = np.uint64(i * C), np.float32(0)
        for k in range(np.uint64(C)):
            x = z[start + k]
            rest = np.float32(1) - t[k] if x > 0 else t[k]
            product = rest * abs(x)
            value = log1p_to_one(exp_to_one(-abs(x))) + (product if rest != 0 else np.float32(0))
            value = value * v[k] if len(v) else value
            row += value
            if len(terms):
                terms[start + k] = value * w if w != 0 else np.float32(0)
        rows[i], total[i] = row * w if w != 0 else np.float32(0), w


@compiled
def _gradients(first, last, dz, z, C, a, b, lam, dense, v, smoothing, threshold, limit, g):
    t, each = np.empty(C, np.float32), len(g) == len(dz)
    for i in range(first, last):
        w = _targets(t, i, C, a, b, lam, dense, smoothing, threshold, limit)
        start = np.uint64(i * C)
        upstream = g[0] if len(g) == 1 or each else g[i]
        for k in range(np.uint64(C)):
            x = z[start + k]
            e = exp_to_one(-abs(x))
            tail = e / (np.float32(1) + e)
            value = (np.float32(1) - t[k]) - tail if x > 0 else tail - t[k]
            value = value * v[k] if len(v) else value
            value = value * w * (g[start + k] if each else upstream)
            dz[start + k] = value if w != 0 else np.float32(0)
