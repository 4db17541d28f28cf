"""The limit that is really reachable: a plain copy with the same mix of bytes, timed in the same run.

``copy(reads, dtype)`` reads the given tensors once, adds them (wrapped, where bytes overflow on a CPU) and writes one
tensor: uint8 to bf16 is ``augment``'s
mix, two uint8 to bf16 Mixup's, two bf16 to bf16 that of a loss's forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastreg.kernels.dispatch import tl, triton, use_triton

BLOCK = 2048


@triton.jit
def _copy_kernel(a, b, out, n, TWO: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    x = tl.load(a + at, mask=mask).to(tl.float32)
    if TWO:
        x += tl.load(b + at, mask=mask).to(tl.float32)
    tl.store(out + at, x, mask=mask)


def copy(reads: Sequence[Tensor], dtype: torch.dtype) -> Callable[[], Tensor]:
    """A call that copies one dense tensor, or the sum of two, of the same size to a new one of ``dtype``."""
    first, second = reads[0], reads[-1]
    n, two = first.numel(), len(reads) == 2
    if len(reads) > 2 or second.numel() != n:
        raise ValueError("copy reads one tensor, or two of the same size")
    # dense memory in storage order: a channels_last tensor is one contiguous run as well
    first, second = (t.as_strided((n,), (1,)) for t in (first, second))

    def call() -> Tensor:
        out = torch.empty(n, dtype=dtype, device=first.device)
        if use_triton(first):
            _copy_kernel[(triton.cdiv(n, BLOCK),)](first, second, out, n, TWO=two, BLOCK=BLOCK, num_warps=8)
        elif two:
            torch.add(first, second, out=out)
        else:
            out.copy_(first)
        return out

    return call


def copy_bytes(reads: Sequence[Tensor], dtype: torch.dtype) -> int:
    """Bytes that such a copy moves."""
    return sum(t.numel() * t.element_size() for t in reads) + reads[0].numel() * dtype.itemsize
