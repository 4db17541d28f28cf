"""Cross-entropy with class weights or float targets on the compiled CPU route: ``weighted_reference.py``'s bits.

As in ``cpu.py``, exp, log and sums are torch's own. The weights d of the classes and their products with the logits are
made for some rows at a time, which stay in cache. Bytes per logit in float32: 44 forward, 20 backward, 4 more each for
float targets.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run
from fastreg.kernels.cross_entropy.cpu import FLOATS, INTEGERS, PASS, array_or, flat, pair_weights
from fastreg.kernels.cross_entropy.reference import MEAN, NONE
from fastreg.kernels.cross_entropy.weighted_reference import WeightedTargets

_AT_ONCE = 1 << 16  # logits


def _arrays(targets: WeightedTargets) -> tuple[Any, ...]:
    dense = FLOATS if targets.dense is None else flat(targets.dense.float())
    labels = (array_or(targets.a, INTEGERS), array_or(targets.b, INTEGERS), array_or(targets.lam, FLOATS))
    v, eps = array_or(targets.class_weight, FLOATS), array_or(targets.eps, FLOATS)
    return *labels, dense, v, eps, np.float32(targets.smoothing)


def forward_cpu(logits: Tensor, targets: WeightedTargets, reduction: int) -> tuple[Tensor, Tensor, Tensor]:
    """``forward_reference`` on contiguous arguments."""
    B, C = logits.shape
    z = logits.float()
    w, divisor, rows, sums = z.new_empty(B), z.new_empty(B), z.new_empty(2, B), z.new_empty(B)
    given = (flat(z), C, *_arrays(targets))
    parts = max(1, B // max(2, _AT_ONCE // C))  # of two rows or more: torch sums a single one in another order
    edges = [B * i // parts for i in range(parts + 1)]
    most = -(-B // parts)
    d, products = z.new_empty(most, C), z.new_empty(most, C)
    for first, last in pairwise(edges):
        n, part = last - first, slice(first, last)
        run(_products, n, flat(d), flat(products), as_array(w), as_array(divisor), first, *given, cost=3 * n * C * PASS)
        torch.sum(d[:n], 1, out=rows[1, part])
        torch.sum(products[:n], 1, out=sums[part])
        torch.logsumexp(z[part], 1, out=rows[0, part])
    loss = (rows[1] * rows[0]).sub_(sums)
    loss = torch.where(w == 0, 0.0, loss + w * 0)  # a NaN of w stays
    if reduction == NONE:
        return loss, rows, z.new_empty(0)
    total = divisor.sum() if reduction == MEAN else torch.ones(())
    return loss.sum() / total, rows, total


def backward_cpu(
    grad: Tensor, logits: Tensor, rows: Tensor, total: Tensor, targets: WeightedTargets, reduction: int
) -> Tensor:
    """``backward_reference`` on contiguous arguments."""
    B, C = logits.shape
    lse, scale = rows
    dz = torch.sub(logits.float(), lse.unsqueeze(1)).exp_()
    g = flat(grad if reduction == NONE else grad / total)
    run(_gradients, B, flat(dz), as_array(scale), C, *_arrays(targets), g, cost=2 * B * C * PASS)
    return dz.to(logits.dtype)


@compiled
def _weights(d, at, i, C, a, b, lam, dense, v, eps, smoothing):
    """Row i of d, into ``d[at:]``; returns (w, divisor)."""
    e, width, start = eps[i] if len(eps) else smoothing, np.uint64(C), np.uint64(i * C)
    share, keep = e / np.float32(C), np.float32(1) - e
    if len(dense):
        for k in range(width):
            d[at + k] = dense[start + k] * keep + share
        if len(v):
            for k in range(width):
                d[at + k] = v[k] * d[at + k]
        return np.float32(1), np.float32(1)
    one, two, wa, wb, poison = pair_weights(i, a, b, lam, C)
    w = wa + wb
    rest = w * e / np.float32(C)
    for k in range(width):
        d[at + k] = v[k] * rest if len(v) else rest
    share_a = wa * v[one] if len(v) else wa
    share_b = wb * v[two] if len(v) else wb
    d[at + np.uint64(one)] += keep * share_a
    d[at + np.uint64(two)] += keep * share_b
    return w + poison, share_a + share_b


@compiled
def _products(first, last, d, products, total, divisor, row, z, C, a, b, lam, dense, v, eps, smoothing):
    """d and d * z of the rows from ``row`` on."""
    for i in range(first, last):
        to, start, j = np.uint64(i * C), np.uint64((row + i) * C), row + i
        total[j], divisor[j] = _weights(d, to, j, C, a, b, lam, dense, v, eps, smoothing)
        for k in range(np.uint64(C)):
            product = d[to + k] * z[start + k]  # read unconditionally, or there are no vector instructions
            products[to + k] = product if d[to + k] != 0 else np.float32(0)


@compiled
def _gradients(first, last, dz, scale, C, a, b, lam, dense, v, eps, smoothing, g):
    """From softmax(z) to the gradient, in place."""
    d = np.empty(C, np.float32)
    for i in range(first, last):
        w, _ = _weights(d, np.uint64(0), i, C, a, b, lam, dense, v, eps, smoothing)
        upstream, nothing, start, s = g[i] if len(g) > 1 else g[0], w * np.float32(0), np.uint64(i * C), scale[i]
        for k in range(np.uint64(C)):
            value = (s * dz[start + k] - d[k] + nothing) * upstream
            dz[start + k] = value if w != 0 else np.float32(0)
