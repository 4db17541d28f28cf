"""The one gate that decides where code runs: a CUDA tensor, or Triton's interpreter, goes to Triton; all else to torch.

Kernel files take ``triton`` and ``tl`` from here, so that they can be imported where Triton is not installed.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

triton: Any
tl: Any
try:
    triton, tl = import_module("triton"), import_module("triton.language")
except ImportError:  # Triton has wheels for Linux only; the plain route needs none of it
    triton = SimpleNamespace(jit=lambda kernel=None, **_: kernel or (lambda kernel: kernel))
    tl = None

INTERPRETED: bool = tl is not None and bool(triton.knobs.runtime.interpret)


def use_triton(*tensors: Tensor | None) -> bool:
    """True when these tensors are to be worked on by Triton kernels: one is on CUDA, or the interpreter is on.

    ValueError if they lie on another GPU than the current one, where Triton would launch.
    """
    if tl is None or INTERPRETED:
        return tl is not None
    for t in tensors:
        if t is not None and t.is_cuda:
            if t.get_device() != torch.cuda.current_device():
                raise ValueError(
                    f"kernels run on the current GPU, {torch.cuda.current_device()}, but a tensor is on {t.device}: "
                    f"call torch.cuda.set_device({t.get_device()}) first"
                )
            return True
    return False


def cdiv(a: int, b: int) -> int:
    """a / b rounded up. Triton's own takes microseconds on the host, as long as a small launch."""
    return -(-a // b)


def sent(x: Tensor, device: torch.device, name: str) -> Tensor:
    """``x``, contiguous, on ``device``, which is not waited for.

    ValueError while a CUDA graph is captured and ``x`` lies elsewhere: its replays would read memory that is long gone.
    """
    if x.device != device and device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise ValueError(f"{name} is on {x.device}: what a CUDA graph captures must lie on {device} before")
    return x.to(device, non_blocking=True).contiguous()
