"""Random fields drawn from (seed, sample index, severity, operation): on the host, and their Triton twin.

Formula: value j of a sample comes from word j % 4 of Philox at (j // 4, sample, severity, operation), j counting in
row-major order. Words and integers are bit-equal on host and device, normals agree to 1e-6. A program of the kernel
draws BLOCK elements of one sample, four values each.

Bytes per value: the result (4 for floats, 2 for shifts and counts, 1 for impulses); counts also read a level, and
a table in cache. The limit is arithmetic: about 25 integer instructions per word. Last measured: not yet measured.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import levels, variant
from fastreg.kernels.corruptions.pixels import Textures, on
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.philox import OPERATIONS, signed
from fastreg.kernels.philox_triton import triton_normal, triton_poisson, triton_uniform, triton_words
from fastreg.kernels.registry import Op

BLOCK = 256
DTYPES = {
    "uniform": torch.float32,  # [0, 1)
    "normal": torch.float32,
    "integer": torch.int16,  # [0, span) minus span // 2
    "impulse": torch.uint8,  # bit 0: word below span, bit 1: the lowest bit of the word
    "poisson": torch.int16,  # counts at the rate of the level
}


class Key(NamedTuple):
    """The key of a draw, and the device of its result."""

    seed: int
    samples: np.ndarray  # int64 [B], index in the data set
    severity: int
    device: torch.device
    textures: Textures | None = None  # of frost

    def field(self, kind: str, operation: str, *shape: int, span: int = 0, levels: Tensor | None = None) -> Tensor:
        """[B, *shape] values of ``kind``, a key of ``DTYPES``, on the device. ``span``: number of integers, threshold
        of impulses, or photons at full white of counts; these also take the pixels, ``levels``."""
        table = None
        if kind == "poisson":
            table, span = on(photon_table(span).view(np.int32), self.device), 0
        samples = on(self.samples.astype(np.uint32).view(np.int32), self.device)
        count = int(np.prod(shape))
        values = draw_field(kind, self.seed, samples, count, self.severity, operation, span, levels, table)
        return values.view(len(samples), *shape)

    def angle(self, operation: str, first: int) -> np.ndarray:
        """float32 [B], uniform on the 90 degrees from ``first``. The host draws numbers per sample."""
        uniform = philox.field(philox.uniform, self.seed, self.samples, 1, self.severity, operation)
        return uniform[:, 0] * 90 + first


@lru_cache(maxsize=32)
def photon_table(photons: int) -> np.ndarray:
    """Poisson thresholds for each of the 256 levels, uint32 [256, a power of two]."""
    return philox.poisson_table(np.arange(256) * photons / 255)


def field_reference(
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
    """[B, count] values of ``kind`` for ``samples`` int32 [B], by numpy."""

    def draw(words: np.ndarray) -> np.ndarray:
        if kind == "integer":
            return philox.integers(words, span) - span // 2
        if kind == "impulse":
            return (words < span).view(np.uint8) | (words.astype(np.uint8) & np.uint8(1)) << 1
        if levels is not None and table is not None:
            rows = levels.flatten(1).cpu().numpy()
            return philox.poisson(words[:, :count], rows, table.cpu().numpy().view(np.uint32))
        return philox.normal(words) if kind == "normal" else philox.uniform(words)

    values = philox.field_reference(draw, seed, samples.cpu().numpy().view(np.uint32), count, step, operation)
    return torch.from_numpy(values).to(samples.device, DTYPES[kind])


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
    out_ptr,  # [B, count] of the kind's dtype
    samples_ptr,  # int32 [B]
    levels_ptr,  # uint8 [B, count], read by poisson only
    table_ptr,  # uint32 [256, WIDTH] as int32, read by poisson only
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


def field_triton(
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
    """``field_reference`` in one launch, on the device of ``samples``."""
    out = torch.empty((len(samples), count), dtype=DTYPES[kind], device=samples.device)
    grid = (triton.cdiv(-(-count // 4), BLOCK), len(samples))
    field_kernel[grid](
        out, samples, out if levels is None else levels, samples if table is None else table,
        signed(seed), step, count, span,
        OPERATION=OPERATIONS[operation], KIND=kind, WIDTH=1 if table is None else table.shape[1], BLOCK=BLOCK,
        enable_fp_fusion=False,  # as in the kernel that draws and applies, so that both draw the same normals
    )  # fmt: skip
    return out


draw_field = routed(field_triton, "noise.field", field_reference)


def _example(kind: str, span: int):
    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        images = levels(device, small)
        case = {"seed": 2**63 + 5, "samples": torch.arange(len(images), dtype=torch.int32, device=device) - 1}
        case |= {"kind": kind, "count": images[0].numel(), "step": 3, "operation": "gaussian_noise", "span": span}
        if kind == "poisson":
            case |= {"levels": images, "table": on(photon_table(60).view(np.int32), images.device)}
        return case

    return example


def _written(arguments: dict[str, Any]) -> int:
    return len(arguments["samples"]) * arguments["count"] * DTYPES[arguments["kind"]].itemsize


def _op(kind: str, out: str, span: int = 0, **tolerance) -> Op:
    compiled = variant(
        f"field_{kind}", field_kernel, BLOCK, "compute", {"out_ptr": out},
        elements=4 * BLOCK, OPERATION=64, KIND=kind, WIDTH=256,
    )  # fmt: skip
    return Op(
        f"field_{kind}",
        field_triton,
        field_reference,
        _example(kind, span),
        _written,
        (compiled,),
        compiled=draw_field,
        **tolerance,
    )


OPS = (
    _op("normal", "*fp32", tolerance=1e-6),
    _op("integer", "*i16", 8),
    _op("impulse", "*u8", 2**29),
    _op("poisson", "*i16"),
)
