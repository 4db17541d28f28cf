"""The kernels of the binary cross-entropy: one launch each way, one more forward for "sum" and "mean".

Bytes per logit: forward one read, 2 in bf16 ("none" also writes 4); backward one read and one write, 4 in bf16. Dense
targets add a read each way. At 1024 x 1000 launches are the limit. Last measured: not yet measured.

Every term is a function of one logit and its target, so nothing of the forward is saved. A target takes one of three
values in a row (at a, at b, elsewhere), which are computed and compared with the threshold per row. With a threshold a
multiplication and an addition are not contracted, so that the comparison is that of the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy.backward import FLAT, WIDE
from fastreg.kernels.cross_entropy.binary_reference import BinaryTargets, Shape
from fastreg.kernels.cross_entropy.forward import LONG, pair, reduce_kernel, tile_of
from fastreg.kernels.cross_entropy.reference import MEAN, NONE
from fastreg.kernels.dispatch import cdiv, tl, triton


@triton.jit
def _binarize(t, threshold, THRESHOLD: tl.constexpr):
    """1 above the threshold, else 0; NaN stays."""
    if THRESHOLD:
        t = tl.where(t > threshold, 1.0, tl.where(t == t, 0.0, t))
    return t


@triton.jit
def _row(
    a_ptr, b_ptr, lam_ptr, off, keep, threshold, row, live, C: tl.constexpr, PAIR: tl.constexpr, DENSE: tl.constexpr,
    THRESHOLD: tl.constexpr,
):  # fmt: skip
    """a, b, the targets at a, at b and elsewhere, and the weight (NaN for bad labels) of a row or a vector of rows."""
    if DENSE:
        a = tl.where(live, -1, -1)
        b = a
        ta = tl.where(live, 0.0, 0.0)
        tb = ta
        rest = ta
        w = tl.where(live, 1.0, 1.0)
    else:
        a, b, wa, wb, off, poison = pair(a_ptr, b_ptr, lam_ptr, None, off, row, live, C, PAIR, False)
        w = wa + wb + poison
        share_a = tl.where((b == -100) & (a != -100), 1.0, wa)
        share_b = tl.where((a == -100) & (b != -100), 1.0, wb)
        ta = _binarize(off + keep * tl.where(a == b, share_a + share_b, share_a), threshold, THRESHOLD)
        tb = _binarize(off + keep * tl.where(a == b, share_a + share_b, share_b), threshold, THRESHOLD)
        rest = _binarize(tl.where(live, off, off), threshold, THRESHOLD)
    return a, b, ta, tb, rest, w


@triton.jit
def _load(at, inside, whole):
    """Elements in float32, 0 outside. ``whole``: all are inside, and the loads are vectors."""
    if whole:
        x = tl.load(at).to(tl.float32)
    else:
        x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    return x


@triton.jit
def _target(i, a, b, ta, tb, rest):
    return tl.where(i == a, ta, tl.where(i == b, tb, rest))


@triton.jit
def _term(z, t):
    """softplus(z) - t * z: log1p(e) of e = exp(-|z|), and |z| times the share of the other side."""
    size = tl.abs(z)
    e = tl.exp2(size * -1.4426950408889634)
    # the polynomial of degree 8 with the least relative error for log1p(e) / e on [0, 1], 3e-8
    p = e * 0.005232694283845492 - 0.029505238850504666
    p = p * e + 0.07822595198471224
    p = p * e - 0.13663245802231266
    p = p * e + 0.1910600676301771
    p = p * e - 0.24842982213731774
    p = p * e + 0.3331909680742894
    p = p * e - 0.49999493140460255
    p = p * e + 0.999999969879556
    rest = tl.where(z > 0, 1.0 - t, t)
    return p * e + tl.where(rest == 0, 0.0, rest * size)


@triton.jit
def _slope(z, t):
    """sigmoid(z) - t, without cancellation where z is large and t is 1."""
    e = tl.exp2(tl.abs(z) * -1.4426950408889634)
    root = tl.math.rsqrt(1.0 + e)  # squared it is the reciprocal to 3e-7, without the range checks of a division
    tail = e * (root * root)
    return tl.where(z > 0, (1.0 - t) - tail, tail - t)


@triton.jit
def _terms(
    logits, dense_ptr, class_ptr, threshold, at, i, inside, a, b, ta, tb, rest, C: tl.constexpr,
    MASK: tl.constexpr, DENSE: tl.constexpr, THRESHOLD: tl.constexpr, CLASS_WEIGHT: tl.constexpr,
):  # fmt: skip
    """The terms of the elements ``at``, classes ``i``, 0 outside. Without MASK the loads are not masked."""
    z = _load(logits + at, inside, not MASK)
    if DENSE:
        t = _binarize(_load(dense_ptr + at, inside, not MASK), threshold, THRESHOLD)
    else:
        t = _target(i, a, b, ta, tb, rest)
    term = _term(z, t)
    if CLASS_WEIGHT:
        term *= tl.load(class_ptr + i, mask=inside, other=0.0)
    if MASK or C % 8 != 0:
        term = tl.where(inside, term, 0.0)
    return term


@triton.jit
def binary_rows_kernel(
    logits, dense_ptr, class_ptr, a_ptr, b_ptr, lam_ptr, off, keep, threshold, loss_ptr, weight_ptr, B,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIR: tl.constexpr, DENSE: tl.constexpr,
    THRESHOLD: tl.constexpr, CLASS_WEIGHT: tl.constexpr, WEIGH: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """The sum of each row, ROWS short rows or one long row per program. WEIGH also stores COUNT times its weight.

    As in ``forward_long_kernel``, loads start at a multiple of eight elements, also where C is odd, and only a row's
    last step is masked."""
    group = tl.program_id(0)
    row = group * ROWS + tl.arange(0, ROWS)
    live = row < B
    a, b, ta, tb, rest, w = _row(a_ptr, b_ptr, lam_ptr, off, keep, threshold, row, live, C, PAIR, DENSE, THRESHOLD)
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
    sums = tl.zeros([ROWS, BLOCK], tl.float32)
    for step in range(steps):
        i = k + (step * BLOCK - head)
        sums += _terms(logits, dense_ptr, class_ptr, threshold, at + step * BLOCK, i, live[:, None] & (i >= 0),
                       a[:, None], b[:, None], ta[:, None], tb[:, None], rest[:, None], C, False, DENSE,
                       THRESHOLD, CLASS_WEIGHT)  # fmt: skip
    if ROWS > 1 or C % BLOCK != 0:
        i = k + (steps * BLOCK - head)
        inside = live[:, None] & (i >= 0) & (i < C)
        sums += _terms(logits, dense_ptr, class_ptr, threshold, at + steps * BLOCK, i, inside, a[:, None], b[:, None],
                       ta[:, None], tb[:, None], rest[:, None], C, True, DENSE, THRESHOLD, CLASS_WEIGHT)  # fmt: skip
    loss = tl.where(w == 0, 0.0, w * tl.sum(sums, axis=1))
    tl.store(loss_ptr + row, loss, mask=live)
    if WEIGH:
        tl.store(weight_ptr + row, w * COUNT, mask=live)


@triton.jit
def _value(
    z, t, i, w, g, class_ptr, inside, CLASS_WEIGHT: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """The stored value of an element: its term, or in the backward its slope times the upstream gradient."""
    if BACKWARD:
        value = _slope(z, t) * g
    else:
        value = _term(z, t)
    if CLASS_WEIGHT:
        value *= tl.load(class_ptr + i, mask=inside, other=0.0)
    return tl.where(w == 0, 0.0, value * w)


@triton.jit
def _upstream(grad, grad_stride, total_ptr, row, live, BACKWARD: tl.constexpr, FULL: tl.constexpr, MEAN: tl.constexpr):
    """The upstream gradient of a row or a vector of rows; 1 in the forward, and where each element has its own."""
    g = tl.where(live, 1.0, 1.0)
    if BACKWARD and not FULL:
        g = tl.load(grad + row * grad_stride, mask=live, other=0.0)
        if MEAN:
            g = tl.div_rn(g, tl.load(total_ptr) + g * 0.0)
    return g


@triton.jit
def binary_tile_kernel(
    grad, grad_stride, logits, dense_ptr, class_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, off, keep, threshold, out, B,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIR: tl.constexpr, DENSE: tl.constexpr,
    THRESHOLD: tl.constexpr, CLASS_WEIGHT: tl.constexpr, BACKWARD: tl.constexpr, FULL: tl.constexpr,
    MEAN: tl.constexpr,
):  # fmt: skip
    """ROWS rows by BLOCK classes per program: the terms, or in the backward the gradient. FULL: ``grad`` is [B, C]."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < B
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    a, b, ta, tb, rest, w = _row(a_ptr, b_ptr, lam_ptr, off, keep, threshold, row, live, C, PAIR, DENSE, THRESHOLD)
    g = _upstream(grad, grad_stride, total_ptr, row, live, BACKWARD, FULL, MEAN)[:, None]
    at = row[:, None].to(tl.int64) * C + i
    inside = live[:, None] & (i < C)
    z = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32)
    if FULL:
        g = tl.load(grad + at, mask=inside, other=0.0)
    if DENSE:
        t = _binarize(tl.load(dense_ptr + at, mask=inside, other=0.0).to(tl.float32), threshold, THRESHOLD)
    else:
        t = _target(i, a[:, None], b[:, None], ta[:, None], tb[:, None], rest[:, None])
    value = _value(z, t, i, w[:, None], g, class_ptr, inside, CLASS_WEIGHT, BACKWARD)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def binary_flat_kernel(
    grad, grad_stride, logits, dense_ptr, class_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, off, keep, threshold, out, B,
    C: tl.constexpr, BLOCK: tl.constexpr, PAIR: tl.constexpr, DENSE: tl.constexpr, THRESHOLD: tl.constexpr,
    CLASS_WEIGHT: tl.constexpr, BACKWARD: tl.constexpr, FULL: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """BLOCK neighboring elements per program, of one row or across the border of two: vectors also where C is odd.

    C is at least BLOCK and not a multiple of 8."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    k = tl.arange(0, BLOCK)
    at = start + k
    row = (start // C).to(tl.int32)
    i = (start - row.to(tl.int64) * C).to(tl.int32) + k
    end = tl.cast(B, tl.int64) * C  # B is a plain 1 for a batch of one
    whole = start + BLOCK <= end
    inside = at < end
    one = tl.where(inside, 1.0, 1.0)
    g = one
    t = one
    z = _load(logits + at, inside, whole)
    if FULL:
        g = _load(grad + at, inside, whole)
    if DENSE:
        t = _binarize(_load(dense_ptr + at, inside, whole), threshold, THRESHOLD)
    a, b, ta, tb, rest, w = _row(a_ptr, b_ptr, lam_ptr, off, keep, threshold, row, row < B, C, PAIR, DENSE, THRESHOLD)
    w = one * w
    if not DENSE:
        t = _target(i, a, b, ta, tb, rest)
    if not FULL:
        g = one * _upstream(grad, grad_stride, total_ptr, row, row < B, BACKWARD, FULL, MEAN)
    if (row + 1).to(tl.int64) * C < start + BLOCK:
        first = i < C
        i = tl.where(first, i, i - C)
        row += 1
        a, b, ta, tb, rest, second = _row(
            a_ptr, b_ptr, lam_ptr, off, keep, threshold, row, row < B, C, PAIR, DENSE, THRESHOLD
        )
        w = tl.where(first, w, second)
        if not DENSE:
            t = tl.where(first, t, _target(i, a, b, ta, tb, rest))
        if not FULL:
            g = tl.where(first, g, _upstream(grad, grad_stride, total_ptr, row, row < B, BACKWARD, FULL, MEAN))
    value = _value(z, t, i, w, g, class_ptr, inside, CLASS_WEIGHT, BACKWARD)
    if whole:
        tl.store(out + at, value.to(out.dtype.element_ty))
    else:
        tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def _shared(logits: Tensor, targets: BinaryTargets) -> dict:
    C = logits.shape[1]
    threshold = targets.threshold
    return {
        "logits": logits, "dense_ptr": targets.dense, "class_ptr": targets.class_weight, "a_ptr": targets.a,
        "b_ptr": targets.b, "lam_ptr": targets.lam, "off": targets.smoothing / C, "keep": 1.0 - targets.smoothing,
        "threshold": 0.0 if threshold is None else float(threshold), "B": logits.shape[0], "C": C,
        "PAIR": targets.b is not None, "DENSE": targets.dense is not None, "THRESHOLD": threshold is not None,
        "CLASS_WEIGHT": targets.class_weight is not None, "enable_fp_fusion": threshold is None,
    }  # fmt: skip


def _elements(logits: Tensor, targets: BinaryTargets, dtype: torch.dtype, **more) -> Tensor:
    """Launch the kernel of one value per logit."""
    B, C = logits.shape
    out = torch.empty_like(logits, dtype=dtype)
    shared = _shared(logits, targets) | {"out": out, **more}
    if C % 8 and C > FLAT:
        binary_flat_kernel[(cdiv(B * C, FLAT),)](BLOCK=FLAT, num_warps=4, **shared)
    else:
        tile = tile_of(min(C, WIDE))
        binary_tile_kernel[(cdiv(B, tile["ROWS"]), cdiv(C, tile["BLOCK"]))](
            num_warps=4 if tile["BLOCK"] <= 2048 else 8, **shared, **tile
        )
    return out


def forward_triton(logits: Tensor, targets: BinaryTargets, shape: Shape) -> tuple[Tensor, Tensor]:
    B, C = logits.shape
    empty = logits.new_empty(0, dtype=torch.float32)
    if shape.reduction == NONE and not shape.sum_classes:
        none = {"grad": None, "grad_stride": 0, "total_ptr": None, "BACKWARD": False, "FULL": False, "MEAN": False}
        return _elements(logits, targets, torch.float32, **none), empty
    loss = empty.new_empty(B)
    weigh = shape.reduction == MEAN
    weight = torch.empty_like(loss) if weigh else None
    tile = tile_of(min(C, LONG))
    binary_rows_kernel[(cdiv(B, tile["ROWS"]),)](
        **_shared(logits, targets), **tile, loss_ptr=loss, weight_ptr=weight, WEIGH=weigh,
        COUNT=1 if shape.sum_classes else C, num_warps=4 if tile["BLOCK"] <= 1024 else 8,
    )  # fmt: skip
    if shape.reduction == NONE:
        return loss, empty
    out, total = loss.new_empty(()), loss.new_empty(())
    reduce_kernel[(1,)](loss, weight, out, total, B, BLOCK=1024, MEAN=weigh, num_warps=4)
    return out, total


def backward_triton(grad: Tensor, logits: Tensor, total: Tensor, targets: BinaryTargets, shape: Shape) -> Tensor:
    rows = shape.reduction == NONE
    full = rows and not shape.sum_classes and grad.stride(1) != 0  # else one value per row, as the gradient of a sum
    grad = grad.contiguous() if full else grad
    stride = grad.stride(0) if rows and not full else 0
    return _elements(
        logits, targets, logits.dtype, grad=grad, grad_stride=stride, total_ptr=total, BACKWARD=True, FULL=full,
        MEAN=shape.reduction == MEAN,
    )  # fmt: skip
