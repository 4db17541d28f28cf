"""Philox4x32-10: every random number of fastreg, on the host and (``philox_triton.py``) in kernels, from one counter.

The key is the 64-bit run seed. The counter is (element, sample index, step, operation), where step is the epoch, the
training step or the severity, depending on the operation. A number therefore belongs to its sample and does not depend
on the batch size, the loader, or the number of workers or GPUs. Words and integers are bit-equal on host and device;
floats through log and sqrt agree to 1e-6.

A field of many values per sample, such as one per pixel, takes value j from word j % 4 of element j // 4.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from fastreg.kernels.philox_operations import OCCURRENCE, OPERATION_BITS, OPERATIONS

VIEW = OCCURRENCE + 18  # and its view from this one on

_MULTIPLIER = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_COMPILED_FROM = 2**15  # values of a field: loading the compiled code takes half a second, once


def words(seed: int, element, sample, step, operation: str) -> np.ndarray:
    """Draw four words per counter.

    Args:
        seed: Key, modulo 2**64.
        element: Integers of any shape that broadcasts with ``sample`` and ``step``, modulo 2**32.
        sample: Integers, index of the sample in the data set, or its key from ``sample_keys``. Negative numbers are
            taken modulo 2**32.
        step: Integers, epoch, training step or severity, modulo 2**32.
        operation: Name in ``OPERATIONS``.

    Returns:
        uint32 [..., 4].

    Raises:
        ValueError: ``operation`` is not in ``OPERATIONS``.

    Source:
        Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    if operation not in OPERATIONS:
        raise ValueError(f"`operation` is {operation!r}: give a name in philox.OPERATIONS, or add one there.")
    element, sample, step = (np.asarray(c).astype(np.int64) for c in (element, sample, step))
    c0, c1, c2 = (c.astype(np.uint64) & _LOW for c in (element, sample, step))
    c3: Any = np.uint64(OPERATIONS[operation])
    occurrence = np.maximum(sample, 0) >> OCCURRENCE
    if occurrence.any():  # an array, which makes the first rounds slower
        c3 = (c3 + (occurrence << OPERATION_BITS).astype(np.uint64)) & _LOW
    out = np.empty((*np.broadcast_shapes(c0.shape, c1.shape, c2.shape), 4), np.uint32)
    for low, high in _key_schedule(seed):
        product0, product1 = c0 * _MULTIPLIER[0], c2 * _MULTIPLIER[1]
        c0, c2 = (product1 >> _HALF) ^ (c1 ^ low), (product0 >> _HALF) ^ (c3 ^ high)
        c1, c3 = product1 & _LOW, product0 & _LOW
    pairs = out.view(np.uint64)  # two words at a time, the lower one first
    np.bitwise_or(c0, c1 << _HALF, out=pairs[..., 0])
    np.bitwise_or(c2, c3 << _HALF, out=pairs[..., 1])
    return out if sys.byteorder == "little" else out[..., (1, 0, 3, 2)]


@lru_cache(maxsize=64)
def _key_schedule(seed: int) -> list[tuple[np.uint64, np.uint64]]:
    """The two keys of each of the ten rounds."""
    keys = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    low, high = ([np.uint64((key + k * weyl) & 0xFFFFFFFF) for k in range(10)] for key, weyl in zip(keys, _WEYL))
    return list(zip(low, high))


def sample_keys(indices: np.ndarray, occurrences: np.ndarray | None) -> np.ndarray:
    """Keys of samples that occur several times in an epoch: index + 2**32 occurrence, int64.

    Every occurrence draws its own numbers. Occurrence 0, and None for all, is the index itself.
    """
    indices = np.asarray(indices, np.int64)
    return indices if occurrences is None else indices + (np.asarray(occurrences, np.int64) << OCCURRENCE)


def view_keys(keys, view: int):
    """Keys (an array or tensor) of view ``view``, 0 to 15, of each sample. View 0 is the sample itself."""
    return keys + (view << VIEW)


def split_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(indices, occurrences)`` of keys from ``sample_keys``, int64 each."""
    return keys & int(_LOW), keys >> OCCURRENCE


def signed(seed: int) -> int:
    """``seed`` modulo 2**64 as a signed 64-bit number, the form that kernels and operator schemas take."""
    return (seed + 2**63) % 2**64 - 2**63


def uniform(words: np.ndarray) -> np.ndarray:
    """One uniform draw from [0, 1) per word, float32 with 24 random bits."""
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def integers(words: np.ndarray, n) -> np.ndarray:
    """One draw from [0, n) per word, int64; ``n`` (1 to 2**32) broadcasts. The bias is below n / 2**32."""
    return ((words.astype(np.uint64) * np.asarray(n).astype(np.uint64)) >> _HALF).astype(np.int64)


def normal(words: np.ndarray) -> np.ndarray:
    """Standard normals by Box and Muller, float32: words (2k, 2k + 1) of the last axis make values (2k, 2k + 1).

    The first word is the radius, the second the angle: its top two bits are the quadrant, the rest a signed fraction.

    Raises:
        ValueError: The last axis has an odd length.
    """
    if words.shape[-1] % 2:
        raise ValueError(f"`words` has a last axis of {words.shape[-1]}: give an even number.")
    first, second = np.ascontiguousarray(words[..., 0::2]), np.ascontiguousarray(words[..., 1::2])
    radius = first.astype(np.float32)
    radius *= np.float32(2**-32)
    radius += np.float32(2**-33)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    np.bitwise_xor(radius.view(np.uint32), second & np.uint32(0x80000000), out=radius.view(np.uint32))  # adds pi
    angle = (second << np.uint32(2)).view(np.int32).astype(np.float32)
    angle *= np.float32(np.pi * 2**-33)
    s, c = (radius * np.sin(angle)).view(np.int32), (radius * np.cos(angle)).view(np.int32)
    # in odd quadrants (c, s) is (-s, c): by bits, as a choice by random flags takes as long as all other steps
    odd = (second & np.uint32(0x40000000)).view(np.int32)
    swap = (s ^ c) & -(odd >> 30)
    out = np.empty(words.shape, np.float32)
    np.bitwise_xor(c ^ swap, odd << 1, out=out.view(np.int32)[..., 0::2])
    np.bitwise_xor(s, swap, out=out.view(np.int32)[..., 1::2])
    return out


def field(draw: Callable, seed: int, samples, count: int, step, operation: str) -> np.ndarray:
    """``draw`` (``uniform``, ``normal`` or a like function) of ``count`` words per sample: [B, count].

    Large fields of these two are drawn by compiled code where numba is installed, with the same bits.
    """
    if draw in (uniform, normal) and np.size(samples) * count >= _COMPILED_FROM and _can_compile():
        from fastreg.kernels import philox_cpu

        w = philox_cpu.words_cpu(seed, samples, count, step, operation)
        values = (philox_cpu.normal_cpu if draw is normal else philox_cpu.uniform_cpu)(w)
        return np.ascontiguousarray(values[:, :count])
    return field_reference(draw, seed, samples, count, step, operation)


def _can_compile() -> bool:
    """Whether the compiled CPU route runs. Torch is imported here: what draws small fields alone needs none."""
    from fastreg.kernels.dispatch import use_compiled

    return use_compiled()


def field_reference(draw: Callable, seed: int, samples, count: int, step, operation: str) -> np.ndarray:
    """``field`` by NumPy."""
    samples = np.asarray(samples).reshape(-1, 1)
    w = words(seed, np.arange(-(-count // 4)), samples, np.asarray(step).reshape(-1, 1), operation)
    return np.ascontiguousarray(draw(w.reshape(len(samples), 4 * w.shape[1]))[:, :count])


def beta(seed: int, alpha: float, sample, step, operation: str) -> np.ndarray:
    """One draw from Beta(alpha, alpha) per counter, float64.

    Raises:
        ValueError: ``alpha`` is not positive and finite.
    """
    one, two = _log_gammas(seed, alpha, 2, sample, step, operation)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(two - one))


def dirichlet(seed: int, alpha: float, count: int, sample, step, operation: str) -> np.ndarray:
    """One draw of ``count`` weights from the symmetric Dirichlet(alpha) per counter, float64 [..., count].

    Raises:
        ValueError: ``alpha`` is not positive and finite.
    """
    log_gamma = _log_gammas(seed, alpha, count, sample, step, operation)
    weights = np.exp(log_gamma - log_gamma.max(0))
    return np.moveaxis(weights / weights.sum(0), 0, -1)


def _log_gammas(seed: int, alpha: float, count: int, sample, step, operation: str) -> np.ndarray:
    """``count`` draws from Gamma(alpha) per counter as logarithms, so that small alphas do not underflow: [count, ...].

    Attempt k of the rejection reads elements count k to count k + count - 1, so each value depends on its counter
    alone.

    Source:
        Marsaglia and Tsang, A simple method for generating gamma variables (ACM TOMS 26, 2000).
    """
    if not 0 < alpha < np.inf:
        raise ValueError(f"`alpha` is {alpha}: give a positive finite number.")
    sample, step = np.broadcast_arrays(np.asarray(sample), np.asarray(step))
    shape, sample, step = sample.shape, sample.ravel(), step.ravel()
    n = sample.size
    side, sample, step = np.repeat(np.arange(count), n), np.tile(sample, count), np.tile(step, count)
    log_gamma = np.empty(count * n)
    d = alpha + 1 - 1 / 3  # shape alpha + 1; a factor U ** (1 / alpha) makes it alpha
    c = 1 / np.sqrt(9 * d)
    left, attempt = np.arange(count * n), 0
    while left.size:
        w = words(seed, count * attempt + side[left], sample[left], step[left], operation)
        x = normal(w[:, :2])[:, 0].astype(np.float64)
        u, boost = _open(w[:, 2]), _open(w[:, 3])
        v = np.maximum(1 + c * x, 0) ** 3
        with np.errstate(divide="ignore"):
            taken = np.log(u) < 0.5 * x * x + d - d * v + d * np.log(v)
            value = np.log(d * v) + np.log(boost) / alpha
        log_gamma[left[taken]] = value[taken]
        left, attempt = left[~taken], attempt + 1
    return log_gamma.reshape(count, *shape)


def _open(words: np.ndarray) -> np.ndarray:
    """One uniform draw from the open interval (0, 1) per word, float64."""
    return (words.astype(np.float64) + 0.5) * 2.0**-32


_AT_ONCE = 1 << 14  # positions whose words are computed together: they fit into a core's cache, and little memory


def permutation(seed: int, n: int, step: int, operation: str, group: int | None = None, start: int = 0) -> np.ndarray:
    """A permutation of [0, n), int64, by sorting a 64-bit key per position.

    With ``group``, elements move only inside consecutive groups of that size. ``start`` is the position of the first
    element in a longer sequence; where it is a multiple of ``group``, a slice is permuted as inside the whole.
    """
    keys = np.empty(n, np.uint64)
    for first in range(0, n, _AT_ONCE):
        elements = np.arange(start + first, start + min(first + _AT_ONCE, n))
        w = words(seed, elements, 0, step, operation).astype(np.uint64)
        keys[first : first + _AT_ONCE] = (w[:, 0] << _HALF) | w[:, 1]
    if group is None or group >= n:
        return _sorted_positions(keys)
    if group < 4096:
        return np.lexsort((keys, np.arange(n) // group))
    order = np.empty(n, np.int64)
    for first in range(0, n, group):
        order[first : first + group] = first + _sorted_positions(keys[first : first + group])
    return order


def _sorted_positions(keys: np.ndarray) -> np.ndarray:
    """``np.argsort(keys, kind="stable")`` by a sort in place: 8 bytes per key beside the keys.

    The high bits of a key and its position are sorted as one number; then the runs whose high bits are equal.
    """
    bits = np.uint64(len(keys).bit_length())
    low = (np.uint64(1) << bits) - np.uint64(1)
    packed = np.arange(len(keys), dtype=np.uint64)
    for first in range(0, len(keys), _AT_ONCE):
        packed[first : first + _AT_ONCE] |= keys[first : first + _AT_ONCE] & ~low
    packed.sort()
    equal = []
    for first in range(0, len(keys) - 1, _AT_ONCE):
        high = packed[first : first + _AT_ONCE + 1] >> bits
        equal.append(np.flatnonzero(high[1:] == high[:-1]) + first)
    packed &= low
    order = packed.view(np.int64)
    ties = np.concatenate(equal) if equal else np.empty(0, np.int64)
    for run in np.split(ties, np.flatnonzero(np.diff(ties) > 1) + 1) if len(ties) else ():
        tied = slice(run[0], run[-1] + 2)
        order[tied] = order[tied][np.argsort(keys[order[tied]], kind="stable")]  # sorted by position already
    return order


def poisson_table(rate) -> np.ndarray:
    """Thresholds for exact Poisson draws at rates from 0 to 500: uint32 [len(rate), a power of two].

    A draw is the number of thresholds of its row at or below the word; 32 bits resolve the tails to 2**-32. An image
    has at most 256 rates, so the table is small. Counts are equal on host and device.

    Raises:
        ValueError: A rate is outside [0, 500].
    """
    rate = np.asarray(rate, np.float64).reshape(-1, 1)
    if not (rate >= 0).all() or not (rate <= 500).all():
        raise ValueError(f"`rate` reaches from {rate.min()} to {rate.max()}: give rates from 0 to 500.")
    top = rate.max()
    width = 1 << int(np.ceil(np.log2(top + 7 * np.sqrt(top) + 24)))
    k = np.arange(width)
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, width)))))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_rate = np.where(rate > 0, np.log(rate), 0)
    probability = np.where(rate > 0, np.exp(k * log_rate - rate - log_factorial), (k == 0).astype(float))
    cumulative = np.cumsum(probability, axis=1)
    return np.minimum(np.floor(cumulative * 2.0**32), 2.0**32 - 1).astype(np.uint32)


def poisson(words: np.ndarray, row: np.ndarray, table: np.ndarray) -> np.ndarray:
    """One count per word, int64, by inversion in row ``row`` (of the words' shape) of a ``poisson_table``."""
    start = row.astype(np.int64) * table.shape[1]
    place, thresholds, jump = start.copy(), table.ravel(), table.shape[1] // 2
    while jump:
        place += (thresholds.take(place + (jump - 1)) <= words) * np.int64(jump)
        jump //= 2
    return place - start
