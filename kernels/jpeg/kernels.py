# Tuples grow while a kernel is unrolled, which Python types cannot follow.
# mypy: disable-error-code="assignment, misc"
"""The two kernels of ``jpeg_round_trip``: chroma planes, then luma and output. A luma block reads its chroma neighbors.

In integers: 16-bit fixed-point RGB to YCbCr, 2x2 chroma means with a bias of 1 on even and 2 on odd columns, transform
and quantizer there and back (``blocks``), triangle ("fancy") upsampling of the chroma, YCbCr to RGB. Entropy coding is
lossless and left out.

Bytes per pixel: image read twice and written once, chroma planes written and read: 3 + 3 + 3 + 2 * 0.5 = 10. Limit at
4.8 TB/s: 9.5 million images/s at 224 px; at 220 instructions per pixel arithmetic is the lower limit. Last measured:
not yet measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.jpeg.blocks import join, quantizers, split, transform_and_quantize


@triton.jit
def _load(image_ptr, offset, left, width, live, WORDS: tl.constexpr, R: tl.constexpr):
    """Eight pixels of each row: r, g, b as eight columns [R] each. Pixels beyond the width repeat the last.

    ``offset`` is the row's first byte, ``left`` the first pixel. WORDS: all eight pixels are inside the row, and rows
    are whole words."""
    k = tl.arange(0, 8)[None, :]
    if WORDS:
        word = (image_ptr + offset + left * 3).to(tl.pointer_type(tl.int32))[:, None] + k
        w = tl.load(word, mask=live[:, None] & (k < 6), other=0)
        w0, w1, w2, w3, w4, w5, _w6, _w7 = split(w, R)
        r = w0 & 255, (w0 >> 24) & 255, (w1 >> 16) & 255, (w2 >> 8) & 255
        g = (w0 >> 8) & 255, w1 & 255, (w1 >> 24) & 255, (w2 >> 16) & 255
        b = (w0 >> 16) & 255, (w1 >> 8) & 255, w2 & 255, (w2 >> 24) & 255
        r = r + (w3 & 255, (w3 >> 24) & 255, (w4 >> 16) & 255, (w5 >> 8) & 255)
        g = g + ((w3 >> 8) & 255, w4 & 255, (w4 >> 24) & 255, (w5 >> 16) & 255)
        b = b + ((w3 >> 16) & 255, (w4 >> 8) & 255, w5 & 255, (w5 >> 24) & 255)
    else:
        place = offset[:, None] + tl.minimum(left[:, None] + k, width - 1) * 3
        r = split(tl.load(image_ptr + place, mask=live[:, None], other=0).to(tl.int32), R)
        g = split(tl.load(image_ptr + place + 1, mask=live[:, None], other=0).to(tl.int32), R)
        b = split(tl.load(image_ptr + place + 2, mask=live[:, None], other=0).to(tl.int32), R)
    return r, g, b


@triton.jit
def _locate(R: tl.constexpr, across, down):
    """Position of each of this program's R block rows: image, block row, block column, row inside the block."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    block = row // 8
    line = block // across
    return (line // down), (line % down).to(tl.int32), (block % across).to(tl.int32), (row % 8).to(tl.int32)


@triton.jit
def chroma_kernel(
    image_ptr,  # uint8 [B,H,W,3]
    chroma_ptr,  # int32 [B, 2, ceil(H / 2), 2 * across]: four samples to a word
    step_ptr,  # int32 [2,64]
    reciprocal_ptr,
    batch,
    height,
    width,
    across,  # chroma blocks in a row
    down,
    WORDS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    R: tl.constexpr = BLOCKS * 8
    plane = tl.program_id(1)  # 0 Cb, 1 Cr
    of_r = tl.where(plane == 0, -11059, 32768)
    of_g = tl.where(plane == 0, -21709, -27439)
    of_b = tl.where(plane == 0, 32768, -5329)
    image, above, left, v = _locate(R, across, down)
    rows = (height + 1) // 2
    columns = (width + 1) // 2
    y = above * 8 + v
    live = image < batch
    top = tl.minimum(y, rows - 1) * 2
    bottom = tl.minimum(top + 1, height - 1)
    x = ()
    for half in tl.static_range(2):
        r, g, b = _load(image_ptr, (image * height + top) * width * 3, left * 16 + half * 8, width, live, WORDS, R)
        s, h, c = _load(image_ptr, (image * height + bottom) * width * 3, left * 16 + half * 8, width, live, WORDS, R)
        for k in tl.static_range(4):
            total = 1 + k % 2
            for i in tl.static_range(2):
                total += (of_r * r[2 * k + i] + of_g * g[2 * k + i] + of_b * b[2 * k + i] + 8421375) >> 16
                total += (of_r * s[2 * k + i] + of_g * h[2 * k + i] + of_b * c[2 * k + i] + 8421375) >> 16
            x = x + ((total >> 2) - 128,)
    x = transform_and_quantize(x, step_ptr + 64, reciprocal_ptr + 64, R)
    first = left * 8
    last = x[0]  # beyond the width, repeat the last sample: the upsampling looks one to the right
    words = ()
    for half in tl.static_range(2):
        word = tl.zeros_like(last)
        for k in tl.static_range(4):
            last = tl.where(first + (half * 4 + k) < columns, x[half * 4 + k], last)
            word |= last << (8 * k)
        words = words + (word,)
    place = ((image * 2 + plane) * rows + y) * across + left
    k = tl.arange(0, 2)[None, :]
    tl.store(chroma_ptr + place[:, None] * 2 + k, tl.join(words[0], words[1]), mask=(live & (y < rows))[:, None])


@triton.jit
def _upsample(chroma_ptr, near, far, left, columns, live, FANCY: tl.constexpr):
    """Eight chroma values per row from the word at ``left`` and its neighbors in the near and the far row."""
    n = tl.load(chroma_ptr + near + left, mask=live, other=0)
    if FANCY:
        f = tl.load(chroma_ptr + far + left, mask=live, other=0)
        before = tl.maximum(left - 1, 0)
        after = tl.where(left * 4 + 4 < columns, left + 1, left)
        n_before = tl.load(chroma_ptr + near + before, mask=live, other=0)
        f_before = tl.load(chroma_ptr + far + before, mask=live, other=0)
        n_after = tl.load(chroma_ptr + near + after, mask=live, other=0)
        f_after = tl.load(chroma_ptr + far + after, mask=live, other=0)
        c0 = 3 * (n & 255) + (f & 255)
        c1 = 3 * ((n >> 8) & 255) + ((f >> 8) & 255)
        c2 = 3 * ((n >> 16) & 255) + ((f >> 16) & 255)
        c3 = 3 * ((n >> 24) & 255) + ((f >> 24) & 255)
        low = tl.where(left > 0, 24, 0)
        high = tl.where(after > left, 0, 24)
        cl = 3 * ((n_before >> low) & 255) + ((f_before >> low) & 255)
        cr = 3 * ((n_after >> high) & 255) + ((f_after >> high) & 255)
        even = (3 * c0 + cl + 8) >> 4, (3 * c1 + c0 + 8) >> 4, (3 * c2 + c1 + 8) >> 4, (3 * c3 + c2 + 8) >> 4
        odd = (3 * c0 + c1 + 7) >> 4, (3 * c1 + c2 + 7) >> 4, (3 * c2 + c3 + 7) >> 4, (3 * c3 + cr + 7) >> 4
    else:
        even = n & 255, (n >> 8) & 255, (n >> 16) & 255, (n >> 24) & 255
        odd = even
    return even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]


@triton.jit
def luma_kernel(
    image_ptr,  # uint8 [B,H,W,3]
    out_ptr,  # uint8 [B,H,W,3]
    chroma_ptr,
    step_ptr,
    reciprocal_ptr,
    batch,
    height,
    width,
    across,  # luma blocks in a row
    down,
    pitch,  # words in a chroma row
    WORDS: tl.constexpr,
    FANCY: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    R: tl.constexpr = BLOCKS * 8
    image, above, left, v = _locate(R, across, down)
    y = above * 8 + v
    inside = image < batch
    offset = (image * height + tl.minimum(y, height - 1)) * width * 3
    r, g, b = _load(image_ptr, offset, left * 8, width, inside, WORDS, R)
    x = ()
    for k in tl.static_range(8):
        x = x + (((19595 * r[k] + 38470 * g[k] + 7471 * b[k] + 32768) >> 16) - 128,)
    x = transform_and_quantize(x, step_ptr, reciprocal_ptr, R)

    rows = (height + 1) // 2
    live = inside & (y < height)
    near = y // 2
    far = tl.minimum(tl.maximum(near - 1 + 2 * (y % 2), 0), rows - 1)
    near = (image * 2 * rows + near) * pitch
    far = (image * 2 * rows + far) * pitch
    blue = _upsample(chroma_ptr, near, far, left, (width + 1) // 2, live, FANCY)
    red = _upsample(chroma_ptr + rows * pitch, near, far, left, (width + 1) // 2, live, FANCY)
    out = ()
    for k in tl.static_range(8):
        u = blue[k] - 128
        w = red[k] - 128
        out = out + (x[k] + ((91881 * w + 32768) >> 16),)
        out = out + (x[k] + ((-22554 * u - 46802 * w + 32768) >> 16),)
        out = out + (x[k] + ((116130 * u + 32768) >> 16),)

    k = tl.arange(0, 8)[None, :]
    if WORDS:
        words = ()
        for i in tl.static_range(6):
            word = tl.zeros_like(x[0])
            for j in tl.static_range(4):
                word |= tl.minimum(tl.maximum(out[4 * i + j], 0), 255) << (8 * j)
            words = words + (word,)
        packed = join(words + (words[0], words[1]), R)
        place = (out_ptr + offset + left * 24).to(tl.pointer_type(tl.int32))[:, None] + k
        tl.store(place, packed, mask=live[:, None] & (k < 6))
    else:
        for c in tl.static_range(3):
            level = ()
            for i in tl.static_range(8):
                level = level + (out[3 * i + c],)
            level = join(level, R)
            level = tl.minimum(tl.maximum(level, 0), 255).to(tl.uint8)
            column = left[:, None] * 8 + k
            tl.store(out_ptr + offset[:, None] + column * 3 + c, level, mask=live[:, None] & (column < width))


def jpeg_triton(images: Tensor, quality: int, blocks: int | None = None) -> Tensor:
    """``jpeg_round_trip`` on checked arguments. ``blocks`` per program; the default keeps tiles in registers."""
    batch, height, width, _ = images.shape
    step, reciprocal = quantizers(quality, str(images.device))
    words = width % 16 == 0 and images.data_ptr() % 4 == 0
    size = blocks or (64 if words else 16)

    down, across = -(-height // 16), -(-width // 16)
    pitch = 2 * across
    chroma = images.new_empty((batch, 2, (height + 1) // 2, pitch), dtype=torch.int32)
    chroma_kernel[(triton.cdiv(batch * down * across, size), 2)](
        images, chroma, step, reciprocal, batch, height, width, across, down,
        WORDS=words, BLOCKS=size, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip

    down, across = -(-height // 8), -(-width // 8)
    out = torch.empty_like(images)
    luma_kernel[(triton.cdiv(batch * down * across, size),)](
        images, out, chroma, step, reciprocal, batch, height, width, across, down, pitch,
        WORDS=words, BLOCKS=size, num_warps=4, enable_fp_fusion=False,
        FANCY=(width + 1) // 2 > 2,  # libjpeg duplicates where the chroma is one or two samples wide
    )  # fmt: skip
    return out
