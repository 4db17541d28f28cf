"""exp and log1p in float32 as straight-line arithmetic, which loops of compiled CPU kernels run in vector instructions.

numba's own call the C library for one value at a time. Both are within 2 units in the last place of the exact value and
return NaN for NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastreg.kernels.compiled import compiled

LOG2_E, MAGIC = np.float32(1 / math.log(2)), np.float32(1.5 * 2**23)  # x + MAGIC - MAGIC is x, rounded
LN2_HIGH = np.float32(0.693359375)  # 9 bits: its products with whole numbers up to 2**14 are exact
LN2_LOW = np.float32(math.log(2) - 0.693359375)
LOWEST = np.float32(-126 * math.log(2))  # below, a result would be a denormal number
INVERSE_FACTORIALS = tuple(np.float32(1 / math.factorial(k)) for k in range(8))
INVERSE_ODDS = tuple(np.float32(1 / (2 * k + 1)) for k in range(8))


@intrinsic
def _bits(typing_context: Any, x: Any) -> Any:
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda context, builder, signature, values: builder.bitcast(
        values[0], ir.IntType(32)
    )


@intrinsic
def _from_bits(typing_context: Any, x: Any) -> Any:
    """The float32 of the bits of an int32."""
    return types.float32(types.int32), lambda context, builder, signature, values: builder.bitcast(
        values[0], ir.FloatType()
    )


@compiled(fastmath=["contract"])
def exp_to_one(x):
    """exp(x) for x of at most 1; 0 where it is below 2**-126."""
    c1, c2, c3, c4, c5, c6, c7 = INVERSE_FACTORIALS[1:]
    inside = LOWEST if x < LOWEST else x
    shifted = inside * LOG2_E + MAGIC
    n = shifted - MAGIC
    r = (inside - n * LN2_HIGH) - n * LN2_LOW
    p = ((((((c7 * r + c6) * r + c5) * r + c4) * r + c3) * r + c2) * r + c1) * r + np.float32(1)
    value = p * _from_bits(np.int32((_bits(shifted) - _bits(MAGIC) + np.int32(127)) << np.int32(23)))
    return np.float32(0) if x < LOWEST else value


@compiled(fastmath=["contract"])
def log1p_to_one(e):
    """log(1 + e) for e in [0, 1], by log((1 + s) / (1 - s)) = 2 (s + s**3 / 3 + ...) with s = e / (2 + e)."""
    c0, c1, c2, c3, c4, c5, c6, c7 = INVERSE_ODDS
    s = e / (np.float32(2) + e)
    q = s * s
    p = ((((((c7 * q + c6) * q + c5) * q + c4) * q + c3) * q + c2) * q + c1) * q + c0
    return np.float32(2) * s * p
