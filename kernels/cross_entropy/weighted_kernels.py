"""The kernels of the cross-entropy with class weights or float targets: one launch each way, one more forward for "sum"
and "mean".

Bytes per logit: forward one read, 2 in bf16; backward one read and one write, 4 in bf16. Float targets add a read each
way. The class weights stay in the cache. Last measured: not yet measured.

The forward keeps four sums per element of a tile, with an online softmax of one exponential per logit, and saves the
log-sum-exp and the sum of the weights of each row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy.backward import FLAT, WIDE
from fastreg.kernels.cross_entropy.forward import LONG, pair, reduce_kernel, tile_of
from fastreg.kernels.cross_entropy.reference import MEAN, NONE
from fastreg.kernels.cross_entropy.weighted_reference import WeightedTargets
from fastreg.kernels.dispatch import cdiv, tl, triton


@triton.jit
def _row(
    a_ptr, b_ptr, lam_ptr, eps_ptr, class_ptr, smoothing, row, live, C: tl.constexpr, PAIR: tl.constexpr,
    EPS: tl.constexpr, DENSE: tl.constexpr, CLASS_WEIGHT: tl.constexpr,
):  # fmt: skip
    """Of a row or a vector of rows: a, b, the weights d at them, what every class adds (keep * q + off, or off, times
    the class weight), the row's share of the divisor, and w (NaN for bad labels)."""
    one = tl.where(live, 1.0, 1.0)
    if DENSE:
        a = tl.where(live, -1, -1)
        b = a
        share_a = one * 0.0
        share_b = share_a
        divisor = one
        w = one
        eps = smoothing
        if EPS:
            eps = tl.load(eps_ptr + row, mask=live, other=0.0)
    else:
        a, b, share_a, share_b, eps, poison = pair(a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, row, live, C, PAIR, EPS)
        w = share_a + share_b + poison
        if CLASS_WEIGHT:
            share_a *= tl.load(class_ptr + a, mask=(a >= 0) & (a < C), other=0.0)
            share_b *= tl.load(class_ptr + b, mask=(b >= 0) & (b < C), other=0.0)
        divisor = share_a + share_b
        share_a *= 1.0 - eps
        share_b *= 1.0 - eps
    return a, b, share_a, share_b, one * (1.0 - eps), w * (eps / C), divisor, w


@triton.jit
def _load(at, inside, whole, other: tl.constexpr):
    """Elements in float32, ``other`` outside. ``whole``: all are inside, and the loads are vectors."""
    if whole:
        x = tl.load(at).to(tl.float32)
    else:
        x = tl.load(at, mask=inside, other=other).to(tl.float32)
    return x


@triton.jit
def _absorb(
    logits, dense_ptr, class_ptr, at, i, inside, keep, off, top, sums, mass, dot, C: tl.constexpr, MASK: tl.constexpr,
    DENSE: tl.constexpr, SMOOTH: tl.constexpr, CLASS_WEIGHT: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax per element, and of the sums of d and d * z that do not depend on the labels."""
    z = _load(logits + at, inside, not MASK, float("-inf"))
    if not MASK and C % 8 != 0:
        z = tl.where(inside, z, float("-inf"))  # elements of the row before
    if DENSE or SMOOTH:
        u = tl.where(inside, off, 0.0)
        if DENSE:
            u = tl.where(inside, _load(dense_ptr + at, inside, not MASK, 0.0) * keep + off, 0.0)
        if CLASS_WEIGHT:
            u *= tl.load(class_ptr + i, mask=inside, other=0.0)
        mass += u
        dot += tl.where(u == 0, 0.0, u * z)
    e = tl.exp2(tl.abs(z - top) * -1.4426950408889634)
    above = z > top
    sums = tl.where(above, sums * e + 1.0, sums + e)
    return tl.where(above, z, top), sums, mass, dot


@triton.jit
def weighted_rows_kernel(
    logits, dense_ptr, class_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, loss_ptr, rows_ptr, weight_ptr, B,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr,
    DENSE: tl.constexpr, SMOOTH: tl.constexpr, CLASS_WEIGHT: tl.constexpr, WEIGH: tl.constexpr,
):  # fmt: skip
    """The loss of each row, ROWS short rows or one long row per program, with its log-sum-exp and sum of weights.

    As in ``forward_long_kernel``, loads start at a multiple of eight elements, also where C is odd, and only a row's
    last step is masked."""
    group = tl.program_id(0)
    row = group * ROWS + tl.arange(0, ROWS)
    live = row < B
    a, b, share_a, share_b, keep, off, divisor, w = _row(
        a_ptr, b_ptr, lam_ptr, eps_ptr, class_ptr, smoothing, row, live, C, PAIR, EPS, DENSE, CLASS_WEIGHT
    )
    start = group.to(tl.int64) * (ROWS * C)
    head = 0
    steps = 0
    if ROWS == 1:
        if C % 8 != 0:
            head = (start % 8).to(tl.int32)
        start = tl.multiple_of(start - head, 8)
        steps = (C + head) // BLOCK
    k = tl.arange(0, BLOCK)[None, :]
    at = start + tl.arange(0, ROWS)[:, None] * C + k
    # finite, so that an infinite logit has a distance from it
    top = tl.full([ROWS, BLOCK], -3.4028234663852886e38, tl.float32)
    sums = tl.zeros([ROWS, BLOCK], tl.float32)
    mass = tl.zeros([ROWS, BLOCK], tl.float32)
    dot = tl.zeros([ROWS, BLOCK], tl.float32)
    for step in range(steps):
        i = k + (step * BLOCK - head)
        top, sums, mass, dot = _absorb(
            logits, dense_ptr, class_ptr, at + step * BLOCK, i, live[:, None] & (i >= 0), keep[:, None], off[:, None],
            top, sums, mass, dot, C, False, DENSE, SMOOTH, CLASS_WEIGHT)  # fmt: skip
    if ROWS > 1 or C % BLOCK != 0:
        i = k + (steps * BLOCK - head)
        inside = live[:, None] & (i >= 0) & (i < C)
        top, sums, mass, dot = _absorb(
            logits, dense_ptr, class_ptr, at + steps * BLOCK, i, inside, keep[:, None], off[:, None], top, sums, mass,
            dot, C, True, DENSE, SMOOTH, CLASS_WEIGHT)  # fmt: skip
    peak = tl.max(top, axis=1)
    lse = peak + tl.log(tl.sum(sums * tl.exp2((top - peak[:, None]) * 1.4426950408889634), axis=1))
    scale = share_a + share_b + tl.sum(mass, axis=1)
    loss = scale * lse - tl.sum(dot, axis=1)
    if not DENSE:
        za = tl.load(logits + row.to(tl.int64) * C + a, mask=live & (share_a != 0) & (a >= 0) & (a < C), other=0.0)
        zb = tl.load(logits + row.to(tl.int64) * C + b, mask=live & (share_b != 0) & (b >= 0) & (b < C), other=0.0)
        loss -= share_a * za.to(tl.float32) + share_b * zb.to(tl.float32)
    tl.store(loss_ptr + row, tl.where(w == 0, 0.0, loss + w * 0.0), mask=live)
    tl.store(rows_ptr + row, lse, mask=live)
    tl.store(rows_ptr + B + row, scale, mask=live)
    if WEIGH:
        tl.store(weight_ptr + row, divisor, mask=live)


@triton.jit
def _upstream(
    grad, grad_stride, rows_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, class_ptr, smoothing, row, live, B,
    C: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr, DENSE: tl.constexpr, CLASS_WEIGHT: tl.constexpr,
    MEAN: tl.constexpr,
):  # fmt: skip
    """Of a row or a vector of rows, for ``_gradient``: a and b; times the upstream gradient the weights at them, keep,
    off and the sum of weights; lse in units of log 2; w."""
    a, b, share_a, share_b, keep, off, _, w = _row(
        a_ptr, b_ptr, lam_ptr, eps_ptr, class_ptr, smoothing, row, live, C, PAIR, EPS, DENSE, CLASS_WEIGHT
    )
    g = tl.load(grad + row * grad_stride, mask=live, other=0.0)
    if MEAN:
        g = tl.div_rn(g, tl.load(total_ptr) + g * 0.0)
    scale = tl.load(rows_ptr + B + row, mask=live, other=0.0)
    lse = tl.load(rows_ptr + row, mask=live, other=0.0) * 1.4426950408889634
    return a, b, share_a * g, share_b * g, keep * g, off * g, (scale + w * 0.0) * g, lse, w


@triton.jit
def _gradient(
    z, q, i, inside, class_ptr, a, b, share_a, share_b, keep, off, scale, lse, w, DENSE: tl.constexpr,
    SMOOTH: tl.constexpr, CLASS_WEIGHT: tl.constexpr,
):  # fmt: skip
    """dz at classes i."""
    dz = scale * tl.exp2(z * 1.4426950408889634 - lse)
    if DENSE or SMOOTH:
        u = off
        if DENSE:
            u = q * keep + off
        if CLASS_WEIGHT:
            u *= tl.load(class_ptr + i, mask=inside, other=0.0)
        dz -= u
    if not DENSE:
        dz = dz - tl.where(i == a, share_a, 0.0) - tl.where(i == b, share_b, 0.0)
    return tl.where(w == 0, 0.0, dz)


@triton.jit
def weighted_tile_kernel(
    grad, grad_stride, logits, dense_ptr, class_ptr, rows_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing,
    out, B, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr,
    DENSE: tl.constexpr, SMOOTH: tl.constexpr, CLASS_WEIGHT: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """The gradient, ROWS rows by BLOCK classes per program."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < B
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    a, b, share_a, share_b, keep, off, scale, lse, w = _upstream(
        grad, grad_stride, rows_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, class_ptr, smoothing, row, live, B, C,
        PAIR, EPS, DENSE, CLASS_WEIGHT, MEAN)  # fmt: skip
    at = row[:, None].to(tl.int64) * C + i
    inside = live[:, None] & (i < C)
    z = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32)
    q = z
    if DENSE:
        q = tl.load(dense_ptr + at, mask=inside, other=0.0).to(tl.float32)
    dz = _gradient(z, q, i, inside, class_ptr, a[:, None], b[:, None], share_a[:, None], share_b[:, None],
                   keep[:, None], off[:, None], scale[:, None], lse[:, None], w[:, None], DENSE, SMOOTH,
                   CLASS_WEIGHT)  # fmt: skip
    tl.store(out + at, dz.to(out.dtype.element_ty), mask=inside)


@triton.jit
def weighted_flat_kernel(
    grad, grad_stride, logits, dense_ptr, class_ptr, rows_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing,
    out, B, C: tl.constexpr, BLOCK: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr, DENSE: tl.constexpr,
    SMOOTH: tl.constexpr, CLASS_WEIGHT: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """The gradient, BLOCK neighboring elements per program, of one row or across the border of two: vectors also where
    C is odd.

    C is at least BLOCK and not a multiple of 8."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    k = tl.arange(0, BLOCK)
    at = start + k
    row = (start // C).to(tl.int32)
    i = (start - row.to(tl.int64) * C).to(tl.int32) + k
    end = tl.cast(B, tl.int64) * C  # B is a plain 1 for a batch of one
    whole = start + BLOCK <= end
    inside = at < end
    z = _load(logits + at, inside, whole, 0.0)
    q = z
    if DENSE:
        q = _load(dense_ptr + at, inside, whole, 0.0)
    a, b, share_a, share_b, keep, off, scale, lse, w = _upstream(
        grad, grad_stride, rows_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, class_ptr, smoothing, row, row < B, B,
        C, PAIR, EPS, DENSE, CLASS_WEIGHT, MEAN)  # fmt: skip
    dz = _gradient(z, q, i, i < C, class_ptr, a, b, share_a, share_b, keep, off, scale, lse, w, DENSE, SMOOTH,
                   CLASS_WEIGHT)  # fmt: skip
    if (row + 1).to(tl.int64) * C < start + BLOCK:
        row += 1
        a, b, share_a, share_b, keep, off, scale, lse, w = _upstream(
            grad, grad_stride, rows_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, class_ptr, smoothing, row, row < B,
            B, C, PAIR, EPS, DENSE, CLASS_WEIGHT, MEAN)  # fmt: skip
        dz = tl.where(i < C, dz, _gradient(z, q, i - C, i >= C, class_ptr, a, b, share_a, share_b, keep, off, scale,
                                           lse, w, DENSE, SMOOTH, CLASS_WEIGHT))  # fmt: skip
    if whole:
        tl.store(out + at, dz.to(out.dtype.element_ty))
    else:
        tl.store(out + at, dz.to(out.dtype.element_ty), mask=inside)


def _shared(logits: Tensor, targets: WeightedTargets) -> dict:
    return {
        "logits": logits, "dense_ptr": targets.dense, "class_ptr": targets.class_weight, "a_ptr": targets.a,
        "b_ptr": targets.b, "lam_ptr": targets.lam, "eps_ptr": targets.eps, "smoothing": float(targets.smoothing),
        "B": logits.shape[0], "C": logits.shape[1], "PAIR": targets.b is not None, "EPS": targets.eps is not None,
        "DENSE": targets.dense is not None, "SMOOTH": targets.eps is not None or targets.smoothing > 0,
        "CLASS_WEIGHT": targets.class_weight is not None,
    }  # fmt: skip


def forward_triton(logits: Tensor, targets: WeightedTargets, reduction: int) -> tuple[Tensor, Tensor, Tensor]:
    B, C = logits.shape
    loss = logits.new_empty(B, dtype=torch.float32)
    rows = loss.new_empty(2, B)
    weight = torch.empty_like(loss) if reduction == MEAN else None
    tile = tile_of(min(C, LONG))
    weighted_rows_kernel[(cdiv(B, tile["ROWS"]),)](
        **_shared(logits, targets), **tile, loss_ptr=loss, rows_ptr=rows, weight_ptr=weight, WEIGH=reduction == MEAN,
        num_warps=4 if tile["BLOCK"] <= 1024 else 8,
    )  # fmt: skip
    if reduction == NONE:
        return loss, rows, loss.new_empty(0)
    out, total = loss.new_empty(()), loss.new_empty(())
    reduce_kernel[(1,)](loss, weight, out, total, B, BLOCK=1024, MEAN=reduction == MEAN, num_warps=4)
    return out, rows, total


def backward_triton(
    grad: Tensor, logits: Tensor, rows: Tensor, total: Tensor, targets: WeightedTargets, reduction: int
) -> Tensor:
    B, C = logits.shape
    out = torch.empty_like(logits)
    shared = _shared(logits, targets) | {
        "grad": grad, "grad_stride": grad.stride(0) if reduction == NONE else 0, "rows_ptr": rows, "total_ptr": total,
        "out": out, "MEAN": reduction == MEAN,
    }  # fmt: skip
    if C % 8 and C > FLAT:
        weighted_flat_kernel[(cdiv(B * C, FLAT),)](BLOCK=FLAT, num_warps=4, **shared)
    else:
        tile = tile_of(min(C, WIDE))
        weighted_tile_kernel[(cdiv(B, tile["ROWS"]), cdiv(C, tile["BLOCK"]))](
            num_warps=4 if tile["BLOCK"] <= 2048 else 8, **shared, **tile
        )
    return out
