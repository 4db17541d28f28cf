"""Fields of random values on the compiled CPU route: words, uniforms, normals and integers, bit-equal to ``philox``.

Logarithm, sine and cosine are NumPy's, between two compiled passes: compiled code would call another library's, whose
last bit differs.
"""

from __future__ import annotations

import numpy as np

from fastreg.kernels.compiled import compiled, run
from fastreg.kernels.philox_operations import OCCURRENCE, OPERATION_BITS, OPERATIONS

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIER0, _MULTIPLIER1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL0, _WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_NANOSECONDS = 2.0  # of a word, roughly
_SIGN, _ODD = np.uint32(0x80000000), np.uint32(0x40000000)


@compiled
def _fill_words(first, last, out, counters, key0, key1):
    """``out`` uint32 [B, elements, 4]; ``counters`` uint64 [3, B]: sample, step and operation of each."""
    for b in range(first, last):
        c1, c2, c3 = counters[0, b], counters[1, b], counters[2, b]
        for element in range(out.shape[1]):
            x0, x1, x2, x3 = np.uint64(element), c1, c2, c3
            low, high = key0, key1
            for _ in range(10):
                product0, product1 = x0 * _MULTIPLIER0, x2 * _MULTIPLIER1
                x0, x2 = (product1 >> _HALF) ^ x1 ^ low, (product0 >> _HALF) ^ x3 ^ high
                x1, x3 = product1 & _LOW, product0 & _LOW
                low, high = (low + _WEYL0) & _LOW, (high + _WEYL1) & _LOW
            out[b, element, 0] = np.uint32(x0)
            out[b, element, 1] = np.uint32(x1)
            out[b, element, 2] = np.uint32(x2)
            out[b, element, 3] = np.uint32(x3)


@compiled
def _polar(first, last, words, radius, angle):
    """The argument of the logarithm, and the angle in (-pi/4, pi/4), of pairs of words uint32 [B, pairs, 2]."""
    for b in range(first, last):
        for i in range(words.shape[1]):
            radius[b, i] = np.float32(words[b, i, 0]) * np.float32(2**-32) + np.float32(2**-33)
            angle[b, i] = np.float32(np.int32(words[b, i, 1] << np.uint32(2))) * np.float32(np.pi * 2**-33)


@compiled
def _turn(first, last, words, log, sine, cosine, out):
    """Radius times the sine and cosine, turned to the quadrant of the pair: float32 [B, pairs, 2]."""
    for b in range(first, last):
        for i in range(words.shape[1]):
            second = words[b, i, 1]
            radius = np.sqrt(log[b, i] * np.float32(-2))
            radius = -radius if second & _SIGN else radius
            s, c = radius * sine[b, i], radius * cosine[b, i]
            odd = (second & _ODD) != 0
            out[b, i, 0] = -s if odd else c
            out[b, i, 1] = c if odd else s


@compiled
def _uniforms(first, last, words, out):
    for b in range(first, last):
        for i in range(out.shape[1]):
            out[b, i] = np.float32(np.int32(words[b, i] >> np.uint32(8))) * np.float32(2**-24)


def words_cpu(seed: int, samples: np.ndarray, count: int, step, operation: str) -> np.ndarray:
    """uint32 [B, 4 ceil(count / 4)]: ``philox.words`` of elements 0, 1, ... of each sample."""
    samples = np.asarray(samples).astype(np.int64).reshape(-1)
    counters = np.empty((3, len(samples)), np.uint64)
    counters[0] = samples.astype(np.uint64) & _LOW
    counters[1] = np.broadcast_to(np.asarray(step).astype(np.int64).reshape(-1), samples.shape).astype(np.uint64) & _LOW
    occurrence = (np.maximum(samples, 0) >> OCCURRENCE) << OPERATION_BITS
    counters[2] = (np.uint64(OPERATIONS[operation]) + occurrence.astype(np.uint64)) & _LOW
    out = np.empty((len(samples), -(-count // 4), 4), np.uint32)
    keys = np.uint64(seed & 0xFFFFFFFF), np.uint64((seed >> 32) & 0xFFFFFFFF)
    run(_fill_words, len(samples), out, counters, *keys, cost=_NANOSECONDS * out.size)
    return out.reshape(len(samples), 4 * out.shape[1])


def uniform_cpu(words: np.ndarray) -> np.ndarray:
    """``philox.uniform`` of uint32 [B, count]."""
    out = np.empty(words.shape, np.float32)
    run(_uniforms, len(words), words, out, cost=words.size)
    return out


def normal_cpu(words: np.ndarray) -> np.ndarray:
    """``philox.normal`` of uint32 [B, an even count]."""
    pairs = words.reshape(len(words), words.shape[1] // 2, 2)
    radius, angle = np.empty(pairs.shape[:2], np.float32), np.empty(pairs.shape[:2], np.float32)
    run(_polar, len(words), pairs, radius, angle, cost=words.size)
    np.log(radius, out=radius)
    out, sine = np.empty(pairs.shape, np.float32), np.sin(angle)
    run(_turn, len(words), pairs, radius, sine, np.cos(angle, out=angle), out, cost=words.size)
    return out.reshape(words.shape)
