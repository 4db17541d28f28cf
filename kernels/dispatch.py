"""The one gate that decides where code runs: a CUDA tensor, or Triton's interpreter, goes to Triton; all else to torch.

Kernel files take ``triton`` and ``tl`` from here, so that they can be imported where Triton is not installed.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

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
    """True when these tensors are to be worked on by Triton kernels: one is on CUDA, or the interpreter is on."""
    return tl is not None and (INTERPRETED or any(t is not None and t.is_cuda for t in tensors))
