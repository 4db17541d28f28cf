"""Random fields drawn on the device: the twin of ``philox.field``, words and integers bit-equal, normals to 1e-6.

Formula: value j of a sample comes from word j % 4 of Philox at (j // 4, sample, severity, operation). A program draws
BLOCK elements of one sample, four values each. Bytes per value: what it writes (4 for floats, 2 for shifts and counts,
1 for impulses; counts also read a level, and a table in cache). About 25 integer instructions per word bound it
earlier than memory does. Speed on a GPU: not yet measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.philox import OPERATIONS, signed, triton_normal, triton_poisson, triton_uniform, triton_words

BLOCK = 256
DTYPES = {
    "uniform": torch.float32,  # [0,1)
    "normal": torch.float32,
    "integer": torch.int16,  # [0, span) minus span // 2
    "impulse": torch.uint8,  # bit 0: word below span, bit 1: the word's lowest bit
    "poisson": torch.int16,  # counts at the rate of the level
}


@triton.jit
def _value(word, level, table_ptr, span, KIND: tl.constexpr, WIDTH: tl.constexpr):
    if KIND == "uniform":
        return triton_uniform(word)
    elif KIND == "integer":
        return (tl.umulhi(word, span.to(tl.uint32)).to(tl.int32) - span // 2).to(tl.int16)
    elif KIND == "impulse":
        return ((word < span.to(tl.uint32)).to(tl.uint8) | ((word & 1) << 1).to(tl.uint8)).to(tl.uint8)
    else:
        return triton_poisson(word, level, table_ptr, WIDTH).to(tl.int16)


@triton.jit
def field_kernel(
    out_ptr,  # [B,count] of the kind's dtype
    samples_ptr,  # int32 [B]
    levels_ptr,  # uint8 [B,count], read by poisson only
    table_ptr,  # uint32 [256,WIDTH] as int32, read by poisson only
    seed,
    step,
    count,
    span,
    OPERATION: tl.constexpr,
    KIND: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, b, c, d = triton_words(seed, element, tl.load(samples_ptr + tl.program_id(1)), step, OPERATION)
    value = element[:, None] * 4 + tl.arange(0, 4)[None, :]
    live = value < count
    value += tl.program_id(1).to(tl.int64) * count
    if KIND == "normal":
        a, b = triton_normal(a, b)
        c, d = triton_normal(c, d)
        result = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK, 4))
    else:
        word = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK, 4))
        level = tl.zeros([BLOCK, 4], tl.int32)
        if KIND == "poisson":
            level = tl.load(levels_ptr + value, mask=live, other=0).to(tl.int32)
        result = _value(word, level, table_ptr, span, KIND, WIDTH)
    tl.store(out_ptr + value, result, mask=live)


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
    """[B,count] values of ``kind`` (see DTYPES) for ``samples`` int32 [B], on their device."""
    out = torch.empty((len(samples), count), dtype=DTYPES[kind], device=samples.device)
    grid = (triton.cdiv(-(-count // 4), BLOCK), len(samples))
    field_kernel[grid](
        out, samples, out if levels is None else levels, samples if table is None else table,
        signed(seed), step, count, span,
        OPERATION=OPERATIONS[operation], KIND=kind, WIDTH=1 if table is None else table.shape[1], BLOCK=BLOCK,
        enable_fp_fusion=False,  # as the kernel that draws and applies, so that both draw the same normals
    )  # fmt: skip
    return out
