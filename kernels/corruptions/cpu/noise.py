"""Random fields, and the noises that add them to an image: one pass each. The draws are those of ``philox_cpu``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.compiled import as_array, compiled, run
from fastreg.kernels.philox_cpu import normal_cpu, uniform_cpu, words_cpu

_BUCKET_BITS = 6  # 64 buckets: the guide of 256 levels fits into the first cache, and a search takes one or two steps


@compiled
def _integers(first, last, words, span, out):
    half = np.int64(span // 2)
    for b in range(first, last):
        for i in range(out.shape[1]):
            out[b, i] = np.int16(np.int64((np.uint64(words[b, i]) * np.uint64(span)) >> np.uint64(32)) - half)


@compiled
def _impulses(first, last, words, span, out):
    limit = np.uint64(span)
    for b in range(first, last):
        for i in range(out.shape[1]):
            word = words[b, i]
            out[b, i] = np.uint8(np.uint64(word) < limit) | np.uint8((word & np.uint32(1)) << np.uint32(1))


@compiled
def _counts(first, last, words, levels, table, guide, out):
    """Number of thresholds at or below each word in the row of its level: ``table`` uint32 [256, width].

    ``guide`` int32 [256, buckets]: the number at or below the first word of a bucket, where the search begins. The
    largest count is width - 1, as in ``philox.poisson``.
    """
    width, shift = table.shape[1], np.uint32(32 - _BUCKET_BITS)
    for b in range(first, last):
        for i in range(out.shape[1]):
            word, row = words[b, i], table[levels[b, i]]
            count = guide[levels[b, i], word >> shift]
            while count < width - 1 and row[count] <= word:
                count += 1
            out[b, i] = np.int16(count)


@compiled
def _add(first, last, images, normal, sigma, times_image, out):
    for i in range(first, last):
        x: Any = np.float64(images[i] * np.int64(257)) * 1.52587890625e-05
        x += x * 1.5259021896696422e-05  # level / 255, correctly rounded
        noise = normal[i] * sigma
        x += noise * x if times_image else noise
        x = 0.0 if x < 0 else x
        x = 1.0 if x > 1 else x
        out[i] = np.uint8(np.int32(x * 255))


def field(
    kind: str,
    seed: int,
    samples: Tensor,
    count: int,
    step: int,
    operation: str,
    span: int = 0,
    levels: Tensor | None = None,
    table: Tensor | None = None,
) -> Tensor:
    """``fields.field_reference``."""
    words = words_cpu(seed, as_array(samples).view(np.uint32), count, step, operation)
    batch, cost = len(words), 1.0 * words.size
    if kind in ("normal", "uniform"):
        values = (normal_cpu if kind == "normal" else uniform_cpu)(words)
        return torch.from_numpy(values if values.shape[1] == count else np.ascontiguousarray(values[:, :count]))
    out = np.empty((batch, count), np.uint8 if kind == "impulse" else np.int16)
    if levels is not None and table is not None:
        rows = as_array(levels).reshape(batch, count)
        thresholds = as_array(table).view(np.uint32)
        run(_counts, batch, words, rows, thresholds, _guide(thresholds.tobytes(), len(table)), out, cost=8 * cost)
    else:
        run(_integers if kind == "integer" else _impulses, batch, words, span, out, cost=cost)
    return torch.from_numpy(out)


@lru_cache(maxsize=16)
def _guide(thresholds: bytes, rows: int) -> np.ndarray:
    """``guide`` of ``_counts``."""
    table = np.frombuffer(thresholds, np.uint32).reshape(rows, -1)
    starts = np.arange(1 << _BUCKET_BITS).astype(np.uint32) << np.uint32(32 - _BUCKET_BITS)
    return np.stack([np.searchsorted(row, starts, side="right") for row in table]).astype(np.int32)


def noisy(images: Tensor, normal: Tensor, sigma: float, times_image: bool) -> Tensor:
    """``noise.noisy_reference``."""
    out = torch.empty_like(images)
    flat = (as_array(x).reshape(-1) for x in (images, normal.double()))
    run(_add, images.numel(), *flat, float(sigma), times_image, as_array(out).reshape(-1), cost=images.numel())
    return out
