"""The kernel for images that keep their size: one pass over contiguous bytes, no gathers.

Bytes per element (uint8 in, bf16 out): 3 alone or with a box of known fill, 4 with a blended partner, 3 to 4 with a
pasted one, whose bytes are loaded only where the box is. The limit at 4.3 TB/s (H200), batch 256 at 224 x 224: 27 us
at 3 bytes, 36 us at 4. Last measured: not yet measured.

How it stays under the instruction budget: a program walks blocks of 1024 bytes at a stride of 3072, so that an
element's channel never changes (1024 % 3 == 1) and scale and bias are made once; mix and normalisation are two
multiply-adds on raw bytes. Each thread works on 8 neighbouring bytes. A flipped row is read as four aligned 32-bit
words per 8 bytes, from which each output byte is picked by a select and a shift that are also made once.
"""

from __future__ import annotations

from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.philox import triton_normal, triton_words

BLOCK = 1024


@triton.jit
def normals(seed, first, sample, step, OPERATION: tl.constexpr):
    """float32 [groups, 8]: ``philox.field``'s normals of eight elements from ``first``, int32 [groups, 1], on."""
    counter = first // 4 + tl.arange(0, 2)[None, :]
    a, b, c, d = triton_words(seed, counter, sample, step, OPERATION)
    a, b = triton_normal(a, b)
    c, d = triton_normal(c, d)
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [first.shape[0], 8])


@triton.jit
def _picks(flipped, channel, j):
    """Which of two neighbouring words (a bit mask) and which shift bring out byte ``j`` of 8: see ``_pick``."""
    n = 9 - j + 2 * channel
    up = tl.where(flipped, (n >> 2) - ((9 - j) >> 2), (j & 2) >> 1)
    shift = tl.where(flipped, (n & 3) * 8, (j & 3) * 8)
    return -up, shift


@triton.jit
def _pick(words, first, flipped, up, shift, j, mask, ROW: tl.constexpr, N: tl.constexpr):
    """int32 [groups, 8]: the bytes at ``first``.. [groups, 1] of one sample, of the mirrored row where ``flipped``.

    Byte j of a flipped row comes from 2 * row_start + ROW - 3 + 2 * channel - (first + j): within 12 bytes of an
    aligned word, because ROW is a multiple of 8. Words 0 and 3 are needed by flipped rows only.
    """
    row = first // ROW
    mirrored = (2 * ROW * row + (ROW - 12) - first) // 4
    base = tl.where(flipped, mirrored, first // 4 + 2)
    way = tl.where(flipped, 1, -1)
    edge = mask & flipped
    w0 = tl.load(words + base, mask=edge & (base >= 0), other=0)
    w1 = tl.load(words + (base + way), mask=mask, other=0)
    w2 = tl.load(words + (base + 2 * way), mask=mask, other=0)
    w3 = tl.load(words + (base + 3 * way), mask=edge & (base + 3 < N // 4), other=0)
    low = tl.where(j < 2, w2, tl.where(j < 6, w1, w0))
    high = tl.where(j < 2, w3, tl.where(j < 6, w2, w1))
    return ((low ^ ((low ^ high) & up)) >> shift) & 255


@triton.jit(do_not_specialize=["seed", "step"])
def stream_kernel(
    out,
    images,
    words,
    flip,
    noise,
    partner,
    lam,
    box,
    box_fill,
    normal,
    indices,
    seed,
    step,
    s0,
    s1,
    s2,
    t0,
    t1,
    t2,
    B,
    N: tl.constexpr,
    ROW: tl.constexpr,
    CHUNKS: tl.constexpr,
    FLIP: tl.constexpr,
    NOISE: tl.constexpr,
    DRAW: tl.constexpr,
    PARTNER: tl.constexpr,
    BLEND: tl.constexpr,
    BOX: tl.constexpr,
    FILL: tl.constexpr,
    OPERATION: tl.constexpr,
):
    """out = own * (lam * s) + (partner * ((1 - lam) * s) + t), with s = 1 / (255 std) and t = -mean / std."""
    phase = tl.program_id(0) % 3
    part = tl.program_id(0) // 3
    b = tl.program_id(1).to(tl.int64)
    g = tl.arange(0, 128)[:, None] * 8
    j = tl.arange(0, 8)[None, :]
    channel = (phase + g + j) % 3
    scale = tl.where(channel == 0, s0, tl.where(channel == 1, s1, s2))
    bias = tl.where(channel == 0, t0, tl.where(channel == 1, t1, t2))
    own_scale = scale

    p = b
    if PARTNER:
        p = tl.load(partner + b)
        known = (p >= 0) & (p < B)
        bias += tl.where(known, 0.0, float("nan"))  # a partner that is not in the batch shows
        p = tl.where(known, p, b)
    if BLEND:
        weight = tl.load(lam + b)
        bias += tl.where((weight >= 0) & (weight <= 1), 0.0, float("nan"))
        own_scale = scale * weight
        partner_scale = scale * (1.0 - weight)
    if FLIP:
        own_flipped = tl.load(flip + b) != 0
        own_up, own_shift = _picks(own_flipped, channel, j)
        if PARTNER:
            partner_flipped = tl.load(flip + p) != 0
            partner_up, partner_shift = _picks(partner_flipped, channel, j)
    if NOISE:
        own_sigma = tl.load(noise + b) * 255.0
        if PARTNER:
            partner_sigma = tl.load(noise + p) * 255.0
        if DRAW:
            own_index = tl.load(indices + b)
            partner_index = tl.load(indices + p)
    if BOX:
        y0 = tl.load(box + b * 4)
        x0 = tl.maximum(tl.load(box + b * 4 + 1), 0) * 3
        y1 = tl.load(box + b * 4 + 2)
        x1 = tl.maximum(tl.minimum(tl.load(box + b * 4 + 3) * 3, ROW), x0)
        fill = tl.to_tensor(0)
        if FILL:
            fill = tl.load(box_fill + b).to(tl.int32)
        # in the box: partner's pixels, black (blended like any pixel), or 0
        share = tl.where(fill == 0, 1.0, 0.0)
        if BLEND:
            share = tl.where(fill == 1, 1.0 - weight, share)
        loaded = tl.where(share > 0, ROW, 0)  # no partner's bytes for a box of known fill
        box_scale = scale * share
        box_bias = tl.where(fill == 2, 0.0, bias)

    for k in tl.static_range(CHUNKS):
        first = (part * CHUNKS + k) * 3072 + phase * 1024 + g
        at = first + j
        inside_image = first < N
        if N % (3072 * CHUNKS) == 0:
            inside_image = g >= 0
        if FLIP:
            own = _pick(words + b * (N // 4), first, own_flipped, own_up, own_shift, j, inside_image, ROW, N)
        else:
            own = tl.load(images + b * N + at, mask=inside_image, other=0).to(tl.int32)
        own = own.to(tl.float32)
        if NOISE:
            if own_sigma > 0:
                if DRAW:
                    field = normals(seed, first, own_index, step, OPERATION)
                else:
                    field = tl.load(normal + b * N + at, mask=inside_image, other=0.0)
                own = tl.minimum(tl.maximum(own + own_sigma * field, 0.0), 255.0)
        result = own * own_scale + bias
        if BOX:
            row = first // ROW
            column = first - row * ROW
            width = tl.where((row >= y0) & (row < y1), x1 - x0, 0)
            # as unsigned numbers, what lies left of the box is beyond it: one comparison per element
            inside = (column - x0 + j).to(tl.uint32, bitcast=True) < width.to(tl.uint32, bitcast=True)
            touched = (column - x0 + 7 >= 0) & (column - x0 < tl.minimum(width, loaded))
            replaced = box_bias
        if PARTNER:
            wanted = inside_image
            if not BLEND:
                wanted = inside_image & touched
            if FLIP:
                other = _pick(
                    words + p * (N // 4), first, partner_flipped, partner_up, partner_shift, j, wanted, ROW, N
                )
            else:
                other = tl.load(images + p * N + at, mask=wanted, other=0).to(tl.int32)
            other = other.to(tl.float32)
            if NOISE:
                if partner_sigma > 0:
                    if DRAW:
                        field = normals(seed, first, partner_index, step, OPERATION)
                    else:
                        field = tl.load(normal + p * N + at, mask=wanted, other=0.0)
                    other = tl.minimum(tl.maximum(other + partner_sigma * field, 0.0), 255.0)
            if BLEND:
                result = own * own_scale + (other * partner_scale + bias)
            if BOX:
                replaced = other * box_scale + box_bias
        if BOX:
            result = tl.where(inside, replaced, result)
        tl.store(out + b * N + at, result.to(out.dtype.element_ty), mask=inside_image)
