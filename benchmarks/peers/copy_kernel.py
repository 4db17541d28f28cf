"""Copy kernel: the memory-bandwidth limit that a kernel with the same mix of bytes can reach, timed in the same run.

uint8 to bf16 is the mix of ``augment``, two uint8 to bf16 that of Mixup, two bf16 to bf16 that of a loss's forward and
backward pass.
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
    """Build a call that copies one dense tensor, or the sum of two, into a new tensor.

    Args:
        reads: one or two dense tensors of the same size; each is read once. Bytes wrap where their sum overflows on a
            CPU.
        dtype: the dtype of the written tensor.

    Returns:
        The call, which returns the written tensor [n] in storage order.

    Raises:
        ValueError: ``reads`` has more than two tensors, or two of different sizes.
    """
    first, second = reads[0], reads[-1]
    n, two = first.numel(), len(reads) == 2
    if len(reads) > 2 or second.numel() != n:
        raise ValueError("`reads` needs one tensor, or two of the same size")
    # storage order: a dense channels_last tensor is one contiguous run as well
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
    """Bytes that :func:`copy` reads and writes."""
    return sum(t.numel() * t.element_size() for t in reads) + reads[0].numel() * dtype.itemsize
