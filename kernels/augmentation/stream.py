"""The kernel for images that keep their size: one pass over contiguous bytes, no gathers.

    out = own * (lam * s) + (partner * ((1 - lam) * s) + t),     s = 1 / (255 std), t = -mean / std

Bytes per element (uint8 in, bf16 out): 3 alone or with a box of known fill, 4 with a blended partner, 3 to 4 with a
pasted partner, whose bytes are loaded only inside the box. Limit at 4.3 TB/s (H200), batch 256 at 224 x 224: 27 us at 3
bytes, 36 us at 4. Last measured: not yet measured.

Instructions are kept few as follows. A program walks blocks of 1024 bytes at a stride of 3072, so that an element's
channel never changes (1024 % 3 == 1) and scale and bias are computed once; mix and normalization are two multiply-adds
on raw bytes. A thread handles a group of 8 neighboring bytes, read as two words. Of a flipped row it reads the mirrored
group and the word on either side, and permutes bytes: four instructions for eight bytes.
"""

from __future__ import annotations

from fastreg.kernels.dispatch import INTERPRETED, tl, triton
from fastreg.kernels.philox_triton import triton_normal, triton_operation, triton_words

BLOCK = 1024


@triton.jit
def normals(seed, first, sample, step, OPERATION: tl.constexpr):
    """The normals of ``philox.field`` for eight elements from ``first``, int32 [groups, 1]: float32 [groups, 8]."""
    counter = first // 4 + tl.arange(0, 2)[None, :]
    a, b, c, d = triton_words(seed, counter, sample, step, triton_operation(sample, OPERATION))
    a, b = triton_normal(a, b)
    c, d = triton_normal(c, d)
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [first.shape[0], 8])


@triton.jit
def _permute(a, b, selector, EMULATE: tl.constexpr):
    """Four of the eight bytes of a (0 to 3) and b (4 to 7): nibble k of ``selector`` is the number of byte k.

    One PRMT instruction. The interpreter has no assembly and takes the other branch."""
    if EMULATE:
        out = a * 0
        for k in tl.static_range(4):
            n = (selector >> (4 * k)) & 7
            byte = tl.where(n < 4, a >> (8 * (n & 3)), b >> (8 * (n & 3))) & 255
            out = out | (byte << (8 * k))
        return out
    else:
        return tl.inline_asm_elementwise("prmt.b32 $0, $1, $2, $3;", "=r,r,r,r", [a, b, selector], tl.int32, True, 1)


@triton.jit
def _by_channel(channel, zero, one, two):
    return tl.where(channel == 0, zero, tl.where(channel == 1, one, two))


@triton.jit
def _group(
    words, group, channel, flipped, mask, ROW: tl.constexpr, N: tl.constexpr, FLIP: tl.constexpr, EMULATE: tl.constexpr
):
    """The 8 bytes of each group of one sample, as two words; from the mirrored row where ``flipped``.

    Byte j of a flipped group, of channel c, is byte 5 - j + 2 c of the mirrored group, counted from its start: from 2
    before it to 1 past its end, hence the words before and after. ``channel`` belongs to the group's first byte.
    """
    place = group
    if FLIP:
        row = group // (ROW // 8)
        place = tl.where(flipped, (2 * row + 1) * (ROW // 8) - 1 - group, group)
    pair = words + (place * 2)[:, None] + tl.arange(0, 2)[None, :]
    first, second = tl.split(tl.load(pair, mask=mask[:, None], other=0))
    if FLIP:
        edge = mask & flipped
        before = tl.load(words + (place * 2 - 1), mask=edge & (place > 0), other=0)
        after = tl.load(words + (place * 2 + 2), mask=edge & (place < N // 8 - 1), other=0)
        low = tl.where(flipped, _by_channel(channel, 0x2765, 0x4307, 0x6540), 0x3210)
        low_after = tl.where(flipped, _by_channel(channel, 0x3210, 0x3240, 0x3215), 0x3210)
        high = tl.where(flipped, _by_channel(channel, 0x0043, 0x2105, 0x0321), 0x7654)
        high_before = tl.where(flipped, _by_channel(channel, 0x3710, 0x3210, 0x6210), 0x3210)
        a = _permute(_permute(first, second, low, EMULATE), after, low_after, EMULATE)
        b = _permute(_permute(first, second, high, EMULATE), before, high_before, EMULATE)
        first = a
        second = b
    return first, second


@triton.jit
def _unpack(first, second):
    """The bytes of two words, float32 [groups, 8]."""
    j = tl.arange(0, 8)[None, :]
    word = tl.where(j < 4, first[:, None], second[:, None])
    return ((word >> ((j & 3) * 8)) & 255).to(tl.float32)


@triton.jit
def partner_of(b, partner, lam, B, PARTNER: tl.constexpr, BLEND: tl.constexpr):
    """A sample's partner (itself without one), its own weight, and a poison: NaN if either is out of range, else 0."""
    p = b
    weight = tl.cast(1.0, tl.float32)
    poison = tl.cast(0.0, tl.float32)
    if PARTNER:
        p = tl.load(partner + b)
        known = (p >= 0) & (p < B)
        poison = tl.where(known, 0.0, float("nan"))
        p = tl.where(known, p, b)
    if BLEND:
        weight = tl.load(lam + b)
        poison += tl.where((weight >= 0) & (weight <= 1), 0.0, float("nan"))
    return p, weight, poison


@triton.jit
def _field(group, base, normal, sample, seed, step, mask, N: tl.constexpr, DRAW: tl.constexpr, OPERATION: tl.constexpr):
    """The normals of the groups' elements, float32 [groups, 8]."""
    if DRAW:
        field = normals(seed, group[:, None] * 8, sample, step, OPERATION)
    else:
        at = group[:, None] * 8 + tl.arange(0, 8)[None, :]
        field = tl.load(normal + base * N + at, mask=mask[:, None], other=0.0)
    return field


@triton.jit
def _noisy(
    value, sigma, group, base, normal, sample, seed, step, mask, N: tl.constexpr, DRAW: tl.constexpr,
    OPERATION: tl.constexpr,
):  # fmt: skip
    """clip(value + sigma * normal, 0, 255) of the groups' elements, with ``sigma`` on the 0-255 scale."""
    field = _field(group, base, normal, sample, seed, step, mask, N, DRAW, OPERATION)
    return tl.minimum(tl.maximum(value + sigma * field, 0.0), 255.0)


@triton.jit
def _box_of(box, sample, ROW: tl.constexpr):
    """A sample's box, in rows and in bytes of a row: y0, x0, y1, x1."""
    y0 = tl.load(box + sample * 4)
    x0 = tl.maximum(tl.load(box + sample * 4 + 1), 0) * 3
    y1 = tl.load(box + sample * 4 + 2)
    x1 = tl.maximum(tl.minimum(tl.load(box + sample * 4 + 3) * 3, ROW), x0)
    return y0, x0, y1, x1


@triton.jit
def _in_box(group, y0, x0, y1, x1, ROW: tl.constexpr):
    """Which elements of the groups are inside the box, [groups, 8]; each group's first byte, from the box's left edge;
    and the box's width in the group's row."""
    row = group // (ROW // 8)
    column = (group - row * (ROW // 8)) * 8 - x0
    width = tl.where((row >= y0) & (row < y1), x1 - x0, 0)
    # as unsigned numbers, elements left of the box are beyond it: one comparison per element
    j = tl.arange(0, 8)[None, :]
    inside = (column[:, None] + j).to(tl.uint32, bitcast=True) < width[:, None].to(tl.uint32, bitcast=True)
    return inside, column, width


@triton.jit
def _erased(
    value, box, sigma, first, group, base, normal, sample, seed, step, mask, N: tl.constexpr, ROW: tl.constexpr,
    NOISE: tl.constexpr, DRAW: tl.constexpr, OPERATION: tl.constexpr,
):  # fmt: skip
    """Normalized values of the groups' elements, of a block from byte ``first``: sigma * normal inside the box."""
    y0, x0, y1, x1 = box
    inside, _, _ = _in_box(group, y0, x0, y1, x1, ROW)
    fill = value * 0.0
    if NOISE:
        # normals cost far more than the rest, so blocks that the box does not reach draw none
        if (sigma > 0) & (first // ROW < y1) & ((first + 1023) // ROW >= y0) & (x0 < x1):
            fill = sigma * _field(group, base, normal, sample, seed, step, mask, N, DRAW, OPERATION)
    return tl.where(inside, fill, value)


@triton.jit(do_not_specialize=["seed", "step"])
def stream_kernel(
    out,
    words,
    flip,
    noise,
    partner,
    lam,
    box,
    box_fill,
    erase,
    erase_noise,
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
    ERASE: tl.constexpr,
    ERASE_NOISE: tl.constexpr,
    OPERATION: tl.constexpr,
    EMULATE: tl.constexpr = INTERPRETED,
):
    """Each program writes CHUNKS blocks of one sample, at every third block."""
    PASTE: tl.constexpr = PARTNER and BOX and not BLEND and not FILL  # then a box only replaces bytes
    phase = tl.program_id(0) % 3
    section = tl.program_id(0) // 3
    b = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, 128)
    j = tl.arange(0, 8)[None, :]
    first_channel = (phase + lane * 2) % 3
    channel = (first_channel[:, None] + j) % 3
    scale = _by_channel(channel, s0, s1, s2)
    bias = _by_channel(channel, t0, t1, t2)
    p, weight, poison = partner_of(b, partner, lam, B, PARTNER, BLEND)
    if ERASE:  # own and partner are normalized first, then erased
        std_scale = scale
        mean_bias = bias
        scale = tl.cast(1.0, tl.float32)
        bias = tl.cast(0.0, tl.float32)
    if PARTNER:
        bias += poison
    own_scale = scale
    if BLEND:
        own_scale = scale * weight
        partner_scale = scale * (1.0 - weight)
    own_flipped = b == p
    partner_flipped = b == p
    if FLIP:
        own_flipped = tl.load(flip + b) != 0
        partner_flipped = tl.load(flip + p) != 0
    if NOISE:
        own_sigma = tl.load(noise + b) * 255.0
        if PARTNER:
            partner_sigma = tl.load(noise + p) * 255.0
    own_index = b
    partner_index = p
    if DRAW:
        own_index = tl.load(indices + b)
        partner_index = tl.load(indices + p)
    if ERASE:
        own_fill = 0.0
        partner_fill = 0.0
        own_box = _box_of(erase, b, ROW)
        partner_box = _box_of(erase, p, ROW)
        if ERASE_NOISE:
            own_fill = tl.load(erase_noise + b)
            partner_fill = tl.load(erase_noise + p)
    if BOX:
        y0, x0, y1, x1 = _box_of(box, b, ROW)
        fill = tl.cast(0, tl.int32)
        if FILL:
            fill = tl.load(box_fill + b).to(tl.int32)
            if not PARTNER:
                x1 = tl.where(fill == 0, x0, x1)  # nothing to paste
        # inside the box: the partner's pixels, black (blended like any pixel), or 0
        share = tl.where(fill == 0, 1.0, 0.0)
        if BLEND:
            share = tl.where(fill == 1, 1.0 - weight, share)
        loaded = tl.where(share > 0, ROW, 0)  # a box of known fill loads none of the partner's bytes
        box_scale = scale * share
        box_bias = tl.where(fill == 2, 0.0, bias)
        if ERASE and FILL:
            box_bias = tl.where(fill == 1, mean_bias * weight + bias, box_bias)

    for k in tl.static_range(CHUNKS):
        group = (section * CHUNKS + k) * 384 + phase * 128 + lane
        mask = group < N // 8
        if N % (3072 * CHUNKS) == 0:
            mask = lane >= 0
        at = group[:, None] * 8 + j
        own = _unpack(*_group(words + b * (N // 4), group, first_channel, own_flipped, mask, ROW, N, FLIP, EMULATE))
        if NOISE:
            if own_sigma > 0:
                own = _noisy(own, own_sigma, group, b, normal, own_index, seed, step, mask, N, DRAW, OPERATION)
        if ERASE:
            first = (section * CHUNKS + k) * 3072 + phase * 1024
            own = _erased(
                own * std_scale + mean_bias, own_box, own_fill, first, group, b, normal, own_index, seed, step, mask,
                N, ROW, ERASE_NOISE, DRAW, OPERATION,
            )  # fmt: skip
        if BOX:
            inside, column, width = _in_box(group, y0, x0, y1, x1, ROW)
        if PARTNER:
            wanted = mask
            if not BLEND:
                wanted = mask & (column + 7 >= 0) & (column < tl.minimum(width, loaded))
            other = _unpack(
                *_group(words + p * (N // 4), group, first_channel, partner_flipped, wanted, ROW, N, FLIP, EMULATE)
            )
            if NOISE:
                if partner_sigma > 0:
                    other = _noisy(
                        other, partner_sigma, group, p, normal, partner_index, seed, step, wanted, N, DRAW, OPERATION
                    )
            if ERASE:
                other = _erased(
                    other * std_scale + mean_bias, partner_box, partner_fill, first, group, p, normal, partner_index,
                    seed, step, wanted, N, ROW, ERASE_NOISE, DRAW, OPERATION,
                )  # fmt: skip
        if PASTE:
            own = tl.where(inside, other, own)
        result = own * own_scale + bias
        if BLEND:
            result = own * own_scale + (other * partner_scale + bias)
        if BOX and not PASTE:
            replaced = box_bias
            if PARTNER:
                replaced = other * box_scale + box_bias
            result = tl.where(inside, replaced, result)
        tl.store(out + b * N + at, result.to(out.dtype.element_ty), mask=mask[:, None])
