"""The forward kernels of the cross-entropy: one launch for the rows, one more for their sum.

Bytes per logit: one read, 2 in bf16. At 1024 x 1000 (2 MB, resident in L2) launches are the limit; at 4096 x 21848 it
is 179 MB, 42 us at 4.3 TB/s (H200). Last measured: not yet measured.

A row of up to 8192 classes is one tile. A longer one is walked with an online softmax per thread, which rescales once
per eight logits. The log-sum-exp is saved for the backward. "sum" and "mean" add rows in a fixed order, without
atomics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.cross_entropy.reference import MEAN, NONE, Labels
from fastreg.kernels.dispatch import cdiv, tl, triton

TILE = 8192  # classes up to which a row is one tile
LONG = 2048  # elements per step of a longer row


@triton.jit
def pair(a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, row, live, C: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr):
    """a, b, wa, wb, eps and poison of a row or a vector of rows, as in ``reference.pair_weights``."""
    a = tl.load(a_ptr + row, mask=live, other=-100).to(tl.int32)
    b = a
    lam = tl.where(a == a, 1.0, 1.0)
    if PAIR:
        b = tl.load(b_ptr + row, mask=live, other=-100).to(tl.int32)
        lam = tl.load(lam_ptr + row, mask=live, other=1.0)
    eps = smoothing
    if EPS:
        eps = tl.load(eps_ptr + row, mask=live, other=0.0)
    good = ((a == -100) | ((a >= 0) & (a < C))) & ((b == -100) | ((b >= 0) & (b < C))) & (lam >= 0) & (lam <= 1)
    wa = tl.where(a == -100, 0.0, lam)
    wb = tl.where(b == -100, 0.0, 1.0 - lam)
    return a, b, wa, wb, eps, tl.where(good, 0.0, float("nan"))


@triton.jit
def _finish(
    row, live, logits, lse, total, top, best, a, b, wa, wb, eps, poison, loss_ptr, lse_ptr, weight_ptr, hit_ptr,
    confidence_ptr, C: tl.constexpr, SMOOTH: tl.constexpr, WEIGH: tl.constexpr, SCORE: tl.constexpr,
):  # fmt: skip
    """Store the loss of a row from its sums, and the values saved for later."""
    w = wa + wb
    za = tl.load(logits + row.to(tl.int64) * C + a, mask=live & (wa != 0) & (a >= 0) & (a < C), other=0.0)
    zb = tl.load(logits + row.to(tl.int64) * C + b, mask=live & (wb != 0) & (b >= 0) & (b < C), other=0.0)
    loss = w * lse - (1.0 - eps) * (wa * za.to(tl.float32) + wb * zb.to(tl.float32))
    if SMOOTH:
        loss -= tl.where(eps > 0, w * (eps / C) * total, 0.0)
    tl.store(loss_ptr + row, tl.where(w == 0, 0.0, loss) + poison, mask=live)
    tl.store(lse_ptr + row, lse, mask=live)
    if WEIGH:
        tl.store(weight_ptr + row, w, mask=live)
    if SCORE:
        tl.store(hit_ptr + row, tl.where(best == a, wa, 0.0) + tl.where(best == b, wb, 0.0), mask=live)
        tl.store(confidence_ptr + row, tl.exp(top - lse), mask=live)


@triton.jit
def forward_tile_kernel(
    logits, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, loss_ptr, lse_ptr, weight_ptr, hit_ptr, confidence_ptr, B,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr,
    SMOOTH: tl.constexpr, WEIGH: tl.constexpr, SCORE: tl.constexpr,
):  # fmt: skip
    """ROWS whole rows per program, each loaded once."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < B
    i = tl.arange(0, BLOCK)[None, :]
    at = logits + row[:, None].to(tl.int64) * C + i
    inside = live[:, None] & (i < C)
    z = tl.load(at, mask=inside, other=float("-inf")).to(tl.float32)
    top = tl.max(z, axis=1)
    lse = top + tl.log(tl.sum(tl.exp(z - top[:, None]), axis=1))
    total = lse
    if SMOOTH:
        total = tl.sum(tl.where(inside, z, 0.0), axis=1)
    best = row
    if SCORE:
        best = tl.min(tl.where(z == top[:, None], i, C), axis=1)
    a, b, wa, wb, eps, poison = pair(a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, row, live, C, PAIR, EPS)
    _finish(row, live, logits, lse, total, top, best, a, b, wa, wb, eps, poison, loss_ptr, lse_ptr, weight_ptr,
            hit_ptr, confidence_ptr, C, SMOOTH, WEIGH, SCORE)  # fmt: skip


@triton.jit
def _absorb(z, i, valid, top, sums, total, best, C: tl.constexpr, SMOOTH: tl.constexpr, SCORE: tl.constexpr):
    """One step of the online softmax per thread: z is [groups, 8], the state [groups]."""
    if SMOOTH:
        total += tl.sum(tl.where(valid, z, 0.0), axis=1)
    z = tl.where(valid, z, float("-inf"))
    here = tl.max(z, axis=1)
    if SCORE:
        first = tl.min(tl.where(z == here[:, None], i, C), axis=1)
        best = tl.where(here > top, first, best)
    new = tl.maximum(top, here)
    base = tl.where(new == float("-inf"), 0.0, new)
    sums = sums * tl.exp(top - base) + tl.sum(tl.exp(z - base[:, None]), axis=1)
    return new, sums, total, best


@triton.jit
def forward_long_kernel(
    logits, a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, loss_ptr, lse_ptr, weight_ptr, hit_ptr, confidence_ptr, B,
    C: tl.constexpr, BLOCK: tl.constexpr, PAIR: tl.constexpr, EPS: tl.constexpr, SMOOTH: tl.constexpr,
    WEIGH: tl.constexpr, SCORE: tl.constexpr,
):  # fmt: skip
    """One long row per program.

    Loads start at a multiple of eight elements, also where C is odd, so that they stay vectors: elements of the row
    before are masked after the load. Only the row's last step is loaded by element."""
    row = tl.program_id(0)
    start = row.to(tl.int64) * C
    head = (start % 8).to(tl.int32)
    if C % 8 == 0:
        head = 0
    i = tl.arange(0, BLOCK // 8)[:, None] * 8 + tl.arange(0, 8)[None, :]
    at = logits + tl.multiple_of(start - head, 8) + i
    top = tl.full([BLOCK // 8], float("-inf"), tl.float32)
    sums = tl.zeros([BLOCK // 8], tl.float32)
    total = tl.zeros([BLOCK // 8], tl.float32)
    best = tl.full([BLOCK // 8], C, tl.int32)
    steps = (C + head) // BLOCK
    for k in range(steps):
        z = tl.load(at + k * BLOCK).to(tl.float32)
        j = i + (k * BLOCK - head)
        top, sums, total, best = _absorb(z, j, j >= 0, top, sums, total, best, C, SMOOTH, SCORE)
    j = i + (steps * BLOCK - head)
    inside = (j >= 0) & (j < C)
    z = tl.load(at + steps * BLOCK, mask=inside, other=0.0).to(tl.float32)
    top, sums, total, best = _absorb(z, j, inside, top, sums, total, best, C, SMOOTH, SCORE)
    peak = tl.max(top, axis=0)
    lse = peak + tl.log(tl.sum(sums * tl.exp(top - peak), axis=0))
    live = row < B
    a, b, wa, wb, eps, poison = pair(a_ptr, b_ptr, lam_ptr, eps_ptr, smoothing, row, live, C, PAIR, EPS)
    _finish(row, live, logits, lse, tl.sum(total, axis=0), peak, tl.min(tl.where(top == peak, best, C), axis=0), a, b,
            wa, wb, eps, poison, loss_ptr, lse_ptr, weight_ptr, hit_ptr, confidence_ptr, C, SMOOTH, WEIGH,
            SCORE)  # fmt: skip


@triton.jit
def reduce_kernel(loss_ptr, weight_ptr, out, total_ptr, B, BLOCK: tl.constexpr, MEAN: tl.constexpr):
    """One program: the sum of the rows, for the mean divided by the sum of their weights."""
    loss = tl.zeros([BLOCK], tl.float32)
    weight = tl.zeros([BLOCK], tl.float32)
    for k in range(tl.cdiv(B, BLOCK)):
        row = k * BLOCK + tl.arange(0, BLOCK)
        loss += tl.load(loss_ptr + row, mask=row < B, other=0.0)
        if MEAN:
            weight += tl.load(weight_ptr + row, mask=row < B, other=0.0)
    sums = tl.sum(loss, axis=0)
    if MEAN:
        total = tl.sum(weight, axis=0)
        tl.store(total_ptr, total)
        sums = tl.div_rn(sums, total)
    tl.store(out, sums)


def pointers(labels: Labels) -> dict:
    a, b, lam, eps, smoothing = labels
    shared = {"a_ptr": a, "b_ptr": b, "lam_ptr": lam, "eps_ptr": eps, "smoothing": float(smoothing)}
    return shared | {"PAIR": b is not None, "EPS": eps is not None}


def tile_of(C: int) -> dict:
    """Rows and classes per tile: about 1024 elements where classes are few."""
    block = 1 << max(C - 1, 1).bit_length()
    return {"ROWS": max(1, 1024 // block), "BLOCK": block}


def forward_triton(logits: Tensor, labels: Labels, reduction: int, score: bool):
    B, C = logits.shape
    lse = logits.new_empty(B, dtype=torch.float32)
    loss, weight = torch.empty_like(lse), torch.empty_like(lse) if reduction == MEAN else None
    hit, confidence = (torch.empty_like(lse) if score else lse.new_empty(0) for _ in range(2))
    shared = pointers(labels) | {
        "logits": logits, "loss_ptr": loss, "lse_ptr": lse, "weight_ptr": weight, "hit_ptr": hit,
        "confidence_ptr": confidence, "B": B, "C": C, "SMOOTH": labels[3] is not None or labels[4] > 0,
        "WEIGH": reduction == MEAN, "SCORE": score,
    }  # fmt: skip
    if C <= TILE:
        tile = tile_of(C)
        warps = 4 if tile["BLOCK"] <= 2048 else 8
        forward_tile_kernel[(cdiv(B, tile["ROWS"]),)](num_warps=warps, **shared, **tile)
    else:
        forward_long_kernel[(B,)](num_warps=8, BLOCK=LONG, **shared)
    if reduction == NONE:
        return loss, lse, lse.new_empty(0), hit, confidence
    out, total = lse.new_empty(()), lse.new_empty(())
    reduce_kernel[(1,)](loss, weight, out, total, B, BLOCK=1024, MEAN=reduction == MEAN, num_warps=4)
    return out, lse, total, hit, confidence
