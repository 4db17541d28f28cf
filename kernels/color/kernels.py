"""The two kernels of ``color_jitter``: the sum of gray values of every image, then one affine map of every pixel.

Bytes per element: 3 (read for the sum, read again, written; a batch that fits the L2 cache is read from memory once).
Limit at 4.3 TB/s (H200), 256 x 224 x 224 x 3: 27 us. Last measured: not yet measured.

A thread takes 16 pixels at a time: 48 bytes, read and written as three vectors of four words. Byte i of word w has
channel (w + i) % 3, because 4 % 3 == 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.dispatch import cdiv, tl, triton

GROUPS = 128  # groups of 16 pixels per program


@triton.jit
def _weight(channel):
    """The channel's weight in the gray value, in thousandths (ITU-R BT.601)."""
    return tl.where(channel == 0, 299, tl.where(channel == 1, 587, 114))


@triton.jit
def gray_kernel(sums, words, PIXELS: tl.constexpr, GROUPS: tl.constexpr):
    """Write 1000 times the sum of the gray values of this program's pixels to ``sums``, int32 [B, programs]."""
    b = tl.program_id(1).to(tl.int64)
    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    j = tl.arange(0, 4)[None, :]
    total = tl.zeros([GROUPS, 4], tl.int32)
    for k in tl.static_range(3):
        at = words + b * (PIXELS * 3 // 4) + (group * 12)[:, None] + (4 * k + j)
        word = tl.load(at, mask=(group < PIXELS // 16)[:, None], other=0)
        total += ((word & 255) + ((word >> 24) & 255)) * _weight((k + j) % 3)
        total += ((word >> 8) & 255) * _weight((k + j + 1) % 3)
        total += ((word >> 16) & 255) * _weight((k + j + 2) % 3)
    tl.store(sums + b * tl.num_programs(0) + tl.program_id(0), tl.sum(tl.sum(total, 1), 0))


@triton.jit
def _four(vector):
    """The four columns of [groups, 4]."""
    even, odd = tl.split(tl.reshape(vector, [vector.shape[0], 2, 2]))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    return a, b, c, d


@triton.jit
def _vector(a, b, c, d):
    """The inverse of ``_four``."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [a.shape[0], 4])


@triton.jit
def _byte(word, i: tl.constexpr):
    return ((word >> (8 * i)) & 255).to(tl.float32)


@triton.jit
def _level(value):
    """The nearest level from 0 to 255, int32."""
    return (tl.minimum(tl.maximum(value, 0.0), 255.0) + 0.5).to(tl.int32)


@triton.jit
def _pixel(red, green, blue, own, gray, k0, k1, k2):
    shade = (0.299 * red + 0.587 * green + 0.114 * blue) * gray
    return _level(red * own + (shade + k0)), _level(green * own + (shade + k1)), _level(blue * own + (shade + k2))


@triton.jit
def _quad(u, v, w, own, gray, k0, k1, k2):
    """Map four pixels in three words."""
    a0, a1, a2 = _pixel(_byte(u, 0), _byte(u, 1), _byte(u, 2), own, gray, k0, k1, k2)
    b0, b1, b2 = _pixel(_byte(u, 3), _byte(v, 0), _byte(v, 1), own, gray, k0, k1, k2)
    c0, c1, c2 = _pixel(_byte(v, 2), _byte(v, 3), _byte(w, 0), own, gray, k0, k1, k2)
    d0, d1, d2 = _pixel(_byte(w, 1), _byte(w, 2), _byte(w, 3), own, gray, k0, k1, k2)
    u = a0 | (a1 << 8) | (a2 << 16) | (b0 << 24)
    v = b1 | (b2 << 8) | (c0 << 16) | (c1 << 24)
    w = c2 | (d0 << 8) | (d1 << 16) | (d2 << 24)
    return u, v, w


@triton.jit
def jitter_kernel(
    out,
    words,
    sums,
    brightness,
    contrast,
    saturation,
    lighting,
    unit,
    programs,
    PIXELS: tl.constexpr,
    GROUPS: tl.constexpr,
    PROGRAMS: tl.constexpr,
    LIGHTING: tl.constexpr,
):
    """out = round(x * own + g(x) * gray + k). ``unit`` is the factor from the sum of a row of ``sums`` to the mean."""
    b = tl.program_id(1).to(tl.int64)
    slot = tl.arange(0, PROGRAMS)
    total = tl.sum(tl.load(sums + b * programs + slot, mask=slot < programs, other=0).to(tl.int64), 0)
    bright = tl.load(brightness + b)
    strength = tl.load(contrast + b)
    saturated = tl.load(saturation + b)
    own = bright * strength * saturated
    gray = bright * strength * (1.0 - saturated)
    k0 = bright * (1.0 - strength) * (total.to(tl.float32) * unit)
    k1 = k0
    k2 = k0
    if LIGHTING:
        k0 += 255.0 * tl.load(lighting + b * 3)
        k1 += 255.0 * tl.load(lighting + b * 3 + 1)
        k2 += 255.0 * tl.load(lighting + b * 3 + 2)

    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    mask = (group < PIXELS // 16)[:, None]
    at = b * (PIXELS * 3 // 4) + (group * 12)[:, None] + tl.arange(0, 4)[None, :]
    w0, w1, w2, w3 = _four(tl.load(words + at, mask=mask, other=0))
    w4, w5, w6, w7 = _four(tl.load(words + at + 4, mask=mask, other=0))
    w8, w9, w10, w11 = _four(tl.load(words + at + 8, mask=mask, other=0))
    w0, w1, w2 = _quad(w0, w1, w2, own, gray, k0, k1, k2)
    w3, w4, w5 = _quad(w3, w4, w5, own, gray, k0, k1, k2)
    w6, w7, w8 = _quad(w6, w7, w8, own, gray, k0, k1, k2)
    w9, w10, w11 = _quad(w9, w10, w11, own, gray, k0, k1, k2)
    tl.store(out + at, _vector(w0, w1, w2, w3), mask=mask)
    tl.store(out + at + 4, _vector(w4, w5, w6, w7), mask=mask)
    tl.store(out + at + 8, _vector(w8, w9, w10, w11), mask=mask)


def supports(images: Tensor) -> bool:
    """Whether images are whole vectors at aligned addresses (as with sides that are multiples of 4) and fit a grid."""
    B, H, W, _ = images.shape
    return B < 65536 and H * W % 16 == 0 and images.data_ptr() % 16 == 0


def color_jitter_triton(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, lighting: Tensor | None, unit: float
) -> Tensor:
    """``color_jitter`` on checked arguments, for images that the kernels support."""
    B, H, W, _ = images.shape
    programs = cdiv(H * W, 16 * GROUPS)
    sums = torch.empty((B, programs), dtype=torch.int32, device=images.device)
    out = torch.empty_like(images)
    words = images.view(-1).view(torch.int32)
    gray_kernel[(programs, B)](sums, words, H * W, GROUPS)
    jitter_kernel[(programs, B)](
        out.view(-1).view(torch.int32), words, sums, brightness, contrast, saturation, lighting, unit, programs,
        H * W, GROUPS, 1 << (programs - 1).bit_length(), lighting is not None,
    )  # fmt: skip
    return out
