"""The backward kernels of the cross-entropy: one launch, from the saved log-sum-exp.

Bytes per logit: one read and one write, 4 in bf16. At 4096 x 21848 it is 358 MB, 83 us at 4.3 TB/s (H200). Last
measured: not yet measured.

The upstream gradient may be any vector. It multiplies in float32 before the cast, so that a loss scale keeps small
gradients in float16. Long rows whose length is not a multiple of 8 are not aligned: there a program takes
neighboring elements across the border of two rows, so that loads and stores stay vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy.forward import TILE, pair, pointers, tile_of
from fastreg.kernels.cross_entropy.reference import MEAN, NONE, Labels
from fastreg.kernels.dispatch import cdiv, tl, triton

FLAT = 1024  # elements per program of the flat kernel
WIDE = 4096  # classes per program at most


@triton.jit
def _shares(
    grad, grad_stride, lse_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, row, live,
    C: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """Of a row or a vector of rows, for ``_gradient``: a, b, the shares of a, b, softmax and uniform target, lse."""
    a, b, wa, wb, eps, poison = pair(a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, row, live, C, PAIR, EPS)
    g = tl.load(grad + row * grad_stride, mask=live, other=0.0)
    if MEAN:
        g = tl.div_rn(g, tl.load(total_ptr) + g * 0.0)
    g += poison
    whole = g * (wa + wb)
    lse = tl.load(lse_ptr + row, mask=live, other=0.0) * 1.4426950408889634
    return a, b, (1.0 - eps) * wa * g, (1.0 - eps) * wb * g, whole, whole * (eps / C), lse


@triton.jit
def _gradient(z, i, a, b, share_a, share_b, whole, uniform, lse):
    """dz at classes i. ``lse`` is in units of log 2, which makes the exponent one multiply-add."""
    dz = whole * tl.exp2(z * 1.4426950408889634 - lse) - uniform
    return dz - tl.where(i == a, share_a, 0.0) - tl.where(i == b, share_b, 0.0)


@triton.jit
def backward_tile_kernel(
    grad, grad_stride, logits, lse_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, out, B, C: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """ROWS rows by BLOCK classes per program."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < B
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    a, b, share_a, share_b, whole, uniform, lse = _shares(
        grad, grad_stride, lse_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, row, live, C, PAIR, EPS, MEAN
    )
    at = row[:, None].to(tl.int64) * C + i
    inside = live[:, None] & (i < C)
    z = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32)
    dz = _gradient(z, i, a[:, None], b[:, None], share_a[:, None], share_b[:, None], whole[:, None], uniform[:, None],
                   lse[:, None])  # fmt: skip
    tl.store(out + at, dz.to(out.dtype.element_ty), mask=inside)


@triton.jit
def backward_flat_kernel(
    grad, grad_stride, logits, lse_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, out, B, C: tl.constexpr,
    BLOCK: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """BLOCK neighboring elements per program, of one row or across the border of two: vectors also where C is odd.

    C is at least BLOCK and not a multiple of 8."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    at = start + tl.arange(0, BLOCK)
    row = (start // C).to(tl.int32)
    i = ((start - row.to(tl.int64) * C) + tl.arange(0, BLOCK)).to(tl.int32)
    end = tl.cast(B, tl.int64) * C  # B is a plain 1 for a batch of one
    whole = start + BLOCK <= end
    if whole:
        z = tl.load(logits + at).to(tl.float32)
    else:
        z = tl.load(logits + at, mask=at < end, other=0.0).to(tl.float32)
    live = row < B
    a, b, share_a, share_b, softmax, uniform, lse = _shares(
        grad, grad_stride, lse_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, row, live, C, PAIR, EPS, MEAN
    )
    dz = _gradient(z, i, a, b, share_a, share_b, softmax, uniform, lse)
    if (row + 1).to(tl.int64) * C < start + BLOCK:
        row += 1
        live = row < B
        a, b, share_a, share_b, softmax, uniform, lse = _shares(
            grad, grad_stride, lse_ptr, total_ptr, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, row, live, C, PAIR, EPS,
            MEAN)  # fmt: skip
        dz = tl.where(i < C, dz, _gradient(z, i - C, a, b, share_a, share_b, softmax, uniform, lse))
    if whole:
        tl.store(out + at, dz.to(out.dtype.element_ty))
    else:
        tl.store(out + at, dz.to(out.dtype.element_ty), mask=at < end)


def backward_triton(grad: Tensor, logits: Tensor, lse: Tensor, total: Tensor, labels: Labels, reduction: int) -> Tensor:
    B, C = logits.shape
    out = torch.empty_like(logits)
    shared = pointers(labels) | {
        "grad": grad, "grad_stride": grad.stride(0) if reduction == NONE else 0, "logits": logits, "lse_ptr": lse,
        "total_ptr": total, "out": out, "B": B, "C": C, "MEAN": reduction == MEAN,
    }  # fmt: skip
    if C % 8 and C > TILE:
        backward_flat_kernel[(cdiv(B * C, FLAT),)](BLOCK=FLAT, num_warps=4, **shared)
    else:
        tile = tile_of(min(C, WIDE))
        backward_tile_kernel[(cdiv(B, tile["ROWS"]), cdiv(C, tile["BLOCK"]))](
            num_warps=4 if tile["BLOCK"] <= 2048 else 8, **shared, **tile
        )
    return out
