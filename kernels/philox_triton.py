"""The random numbers of ``philox.py`` in Triton kernels.

``element`` is an int32 tensor, the other words of the counter are scalars. ``operation`` is the id in OPERATIONS, a
constexpr from the launcher. Constants are literals, because kernels may not read Python globals.
"""

from __future__ import annotations

from fastreg.kernels.dispatch import tl, triton


@triton.jit
def triton_words(seed, element, sample, step, operation):
    """The four words of ``words``, uint32, each in the shape of ``element``."""
    c0 = element.to(tl.uint32)
    c1 = tl.cast(sample, tl.uint32)
    c2 = tl.cast(step, tl.uint32)
    c3 = tl.cast(operation, tl.uint32)
    return tl.philox(seed, c0, c1, c2, c3)


@triton.jit
def triton_operation(key, operation):
    """The last word of the counter, for a sample's key (int64) and the id of an operation."""
    return operation + ((tl.maximum(key, 0) >> 32) << 10).to(tl.int32)


@triton.jit
def triton_uniform(word):
    """``uniform``, bit-equal to the host."""
    return (word >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-8


@triton.jit
def triton_normal(first, second):
    """``normal`` of one pair of words, two float32 tensors, to 1e-6 of the host.

    tl.sin and tl.cos would spill registers in their path for large arguments: sine and cosine are Taylor polynomials on
    [-pi/4, pi/4], accurate to 1e-8. The hardware's logarithm has an absolute error of 2**-22, as large as log(u) near
    u = 1: the logarithm is the polynomial of Cephes' logf.
    """
    u = first.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23  # mantissa in [sqrt(1/2), sqrt(2))
    t = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    p = 7.0376836292e-2 * t - 1.1514610310e-1
    p = p * t + 1.1676998740e-1
    p = p * t - 1.2420140846e-1
    p = p * t + 1.4249322787e-1
    p = p * t - 1.6668057665e-1
    p = p * t + 2.0000714765e-1
    p = p * t - 2.4999993993e-1
    p = p * t + 3.3333331174e-1
    log = t + (t * t * (p * t - 0.5) + exponent.to(tl.float32) * 0.6931471805599453)
    radius = tl.sqrt_rn(tl.maximum(-2.0 * log, 0.0))
    angle = (second << 2).to(tl.int32, bitcast=True).to(tl.float32) * 3.6572951981e-10
    a = angle * angle
    s = angle + angle * a * (-1.6666666667e-1 + a * (8.3333333333e-3 + a * (-1.9841269841e-4 + a * 2.7557319224e-6)))
    c = 1.0 + a * (-0.5 + a * (4.1666666667e-2 + a * (-1.3888888889e-3 + a * 2.4801587302e-5)))
    odd = ((second >> 30) & 1) != 0
    radius = tl.where((second >> 31) != 0, -radius, radius)
    return radius * tl.where(odd, -s, c), radius * tl.where(odd, c, s)


@triton.jit
def triton_poisson(word, row, table, WIDTH: tl.constexpr):
    """``poisson``, int32, bit-equal to the host, from a ``poisson_table`` of WIDTH columns in device memory."""
    count = row * 0
    for level in tl.static_range(1, 11):  # WIDTH is 1024 at most
        jump = WIDTH >> level
        if jump > 0:
            threshold = tl.load(table + row * WIDTH + count + (jump - 1))
            count += tl.where(threshold <= word, jump, 0)
    return count
