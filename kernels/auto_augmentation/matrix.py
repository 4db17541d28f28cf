"""Coefficients of the geometric operations: from an output pixel to the position in the image that it is read from.

    x_in = a0 (x + 1/2) + a1 (y + 1/2) + a2        y_in = a3 (x + 1/2) + a4 (y + 1/2) + a5

Pillow evaluates this in float64 for bilinear and bicubic, and for nearest in fixed point with 16 bits after the point,
or, where a coordinate of a corner is 32768 or more, in float64. A shear that far has a magnitude of 1 or more, whose
float32 fits 32 bits after the point exactly, so that the second case is fixed point too.

Rotate needs cosine and sine as Python rounds them, to 15 decimals. They come from fdlibm's polynomials, in float64 and
one operation after the other, so that every GPU and the interpreter agree. The C library's may differ in the last bit
before the rounding: coefficients then differ by 1e-15, a ten-billionth of the fixed point's unit.
"""

from __future__ import annotations

from fastreg.kernels.auto_augmentation.operations import ROTATE, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y
from fastreg.kernels.dispatch import tl, triton


@triton.jit
def _round(x):
    """Python's round(x, 15). x has 18 bits and a rest, so that the whole part of x * 1e15 is exact."""
    head = tl.floor(x * 262144.0) * 3.814697265625e-06
    scaled = head * 1e15
    whole = tl.floor(scaled)
    return (whole + tl.floor((scaled - whole) + (x - head) * 1e15 + 0.5)) / 1e15


@triton.jit
def _cosine_and_sine(degrees):
    """Of an angle from 0 to 360 degrees, float64. Reduction and polynomials: fdlibm, e_rem_pio2, k_cos and k_sin."""
    angle = degrees * 0.017453292519943295
    quarter = tl.ceil(angle * 0.6366197723675814 - 0.5)  # as fdlibm, none up to 45 degrees
    rest = angle - quarter * 1.57079632673412561417
    tail = quarter * 6.07710050650619224932e-11
    y = rest - tail
    tail = (rest - y) - tail
    z = y * y
    p = -2.50507602534068634195e-08 + z * 1.58969099521155010221e-10
    p = 8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * (2.75573137070700676789e-06 + z * p))
    cube = z * y
    sine = y - ((z * (0.5 * tail - cube * p) - tail) - cube * -1.66666666666666324348e-01)
    p = -2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)
    p = z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * (2.48015872894767294178e-05 + z * p)))
    half = 0.5 * z
    one = 1.0 - half
    cosine = one + (((1.0 - one) - half) + (z * p - y * tail))
    turn = quarter.to(tl.int32) & 3
    swap = (turn & 1) != 0
    c = tl.where(swap, sine, cosine)
    s = tl.where(swap, cosine, sine)
    return tl.where((turn == 1) | (turn == 2), -c, c), tl.where(turn >= 2, -s, s)


@triton.jit
def _fixed(x, unit):
    return tl.floor(x * unit + 0.5)


@triton.jit
def store_matrix(out, operation, magnitude, nearest, H, W):
    """Write a0 to a5 of one sample and the number of bits after the point, float64 [7].

    ``nearest``: in fixed point, with the half pixels in a2 and a5."""
    m = magnitude.to(tl.float64)
    height = H.to(tl.float64)
    width = W.to(tl.float64)
    zero = m * 0.0
    a0 = zero + 1.0
    a1 = zero
    a2 = zero
    a3 = zero
    a4 = a0
    a5 = zero
    bits = 16
    unit = zero + 65536.0
    if operation <= SHEAR_Y:
        m = tl.minimum(tl.maximum(m, -65536.0), 65536.0)  # beyond, no pixel is inside
        across = tl.where(operation == SHEAR_X, width, height)
        reach = m * tl.where(operation == SHEAR_X, height, width)
        if (tl.abs(reach) >= 32768.0) | (tl.abs(reach + across) >= 32768.0):
            bits = 32
            unit = unit * 65536.0
        a1 = tl.where(operation == SHEAR_X, m, zero)
        a3 = tl.where(operation == SHEAR_Y, m, zero)
    elif operation < ROTATE:
        shift = tl.minimum(tl.maximum(m, -32768.0), 32768.0).to(tl.int32).to(tl.float64)
        a2 = tl.where(operation == TRANSLATE_X, -shift, zero)
        a5 = tl.where(operation == TRANSLATE_Y, -shift, zero)
    else:
        degrees = m - tl.floor(m / 360.0) * 360.0
        c, s = _cosine_and_sine(tl.minimum(tl.maximum(degrees, 0.0), 360.0))
        a0 = _round(c)
        a4 = a0
        a3 = _round(s)
        a1 = -a3
        a2 = (a0 * (-0.5 * width) + a1 * (-0.5 * height)) + 0.5 * width
        a5 = (a3 * (-0.5 * width) + a4 * (-0.5 * height)) + 0.5 * height
    if nearest:
        a2 = _fixed(a2 + a0 * 0.5 + a1 * 0.5, unit)
        a5 = _fixed(a5 + a3 * 0.5 + a4 * 0.5, unit)
        a0 = _fixed(a0, unit)
        a1 = _fixed(a1, unit)
        a3 = _fixed(a3, unit)
        a4 = _fixed(a4, unit)
    tl.store(out, a0)
    tl.store(out + 1, a1)
    tl.store(out + 2, a2)
    tl.store(out + 3, a3)
    tl.store(out + 4, a4)
    tl.store(out + 5, a5)
    tl.store(out + 6, zero + bits)
