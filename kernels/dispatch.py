"""Dispatch: a CUDA tensor, or any tensor in Triton's interpreter, goes to Triton; a CPU tensor to the compiled CPU
route where the operation has one and numba is installed; all others to the torch reference.

Kernel files import ``triton`` and ``tl`` from here, so that they can be imported where Triton is not installed. The
``cpu.py`` of an operation imports numba, which takes half a second: import it after ``use_compiled``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

triton: Any
tl: Any
try:
    triton, tl = import_module("triton"), import_module("triton.language")
except ImportError:  # Triton has wheels for Linux only; the reference does not need it
    triton = SimpleNamespace(jit=lambda kernel=None, **_: kernel or (lambda kernel: kernel))
    tl = None

INTERPRETED: bool = tl is not None and bool(triton.knobs.runtime.interpret)


def use_triton(*tensors: Tensor | None) -> bool:
    """Whether to run Triton kernels: a tensor is on CUDA, or the interpreter is on.

    Raises:
        ValueError: A tensor is on another GPU than the current one, where Triton would launch.
    """
    if tl is None or INTERPRETED:
        return tl is not None
    for t in tensors:
        if t is not None and t.is_cuda:
            if t.get_device() != torch.cuda.current_device():
                raise ValueError(
                    f"A tensor is on {t.device}, but kernels run on the current GPU, {torch.cuda.current_device()}: "
                    f"call torch.cuda.set_device({t.get_device()}) first."
                )
            return True
    return False


def use_compiled(*tensors: Tensor | None) -> bool:
    """Whether to run the compiled CPU route: every tensor is a plain one on the CPU, and numba works.

    Ask ``use_triton`` first. Without numba the results are the same, from the reference.
    """
    plain = all(t is None or (t.device.type == "cpu" and type(t) in (Tensor, Parameter)) for t in tensors)
    return plain and not numba_error()


@cache
def numba_error() -> str:
    """Why the compiled CPU route cannot run: the error of importing numba; empty where it can."""
    try:
        if import_module("numba").config.DISABLE_JIT:
            return "NUMBA_DISABLE_JIT is set"
    except Exception as error:  # missing, or made for another numpy
        return str(error) or type(error).__name__
    return ""


def cdiv(a: int, b: int) -> int:
    """a / b rounded up. Triton's own ``cdiv`` takes microseconds on the host, as much as a small launch."""
    return -(-a // b)


def to_device(x: Tensor, device: torch.device, name: str) -> Tensor:
    """Contiguous ``x`` on ``device``; the host does not wait for the copy.

    Raises:
        ValueError: A CUDA graph is being captured and ``x`` (the parameter ``name``) is on another device. Replays
            would read memory that is freed by then.
    """
    if x.device != device and device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise ValueError(f"`{name}` is on {x.device}: move it to {device} before a CUDA graph is captured.")
    return x.to(device, non_blocking=True).contiguous()
