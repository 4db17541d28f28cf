"""Process-wide switches of PyTorch: set for one run or one evaluation, and put back at its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def torch_switches(
    *,
    tf32: bool,
    cudnn_benchmark: bool | None = None,
    deterministic: bool | None = None,
    recompile_limit: int | None = None,
    eager_fallback: bool = False,
) -> Iterator[None]:
    """Set switches of the whole process inside a block, and restore the caller's values at its end.

    Args:
        tf32: whether GPUs may multiply float32 matrices and convolve in TF32, which has a mantissa of 10 bits. CPUs
            compute in float32 in either case.
        cudnn_benchmark: whether cuDNN tries its algorithms for each new shape. None leaves the switch alone.
        deterministic: whether PyTorch uses deterministic algorithms only. None leaves the switch alone.
        recompile_limit: the least number of programs that torch.compile may make of one function. None leaves the
            limit alone, and does not import the compiler.
        eager_fallback: whether torch.compile, with ``recompile_limit``, runs what it fails to compile uncompiled, with
            a warning.
    """
    restore = [_set_tf32(tf32)]
    try:
        if cudnn_benchmark is not None:
            restore.append(_set_attribute(torch.backends.cudnn, "benchmark", cudnn_benchmark))
        if deterministic is not None:
            restore.append(_set_deterministic(deterministic))
        if recompile_limit is not None:
            config: Any = torch._dynamo.config
            restore.append(_set_attribute(config, "recompile_limit", max(config.recompile_limit, recompile_limit)))
            if eager_fallback:
                restore.append(_set_attribute(config, "suppress_errors", True))
        yield
    finally:
        for put_back in reversed(restore):
            put_back()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Set PyTorch's number of threads on a CPU inside a block, and restore it at its end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _set_attribute(owner: Any, name: str, value: Any) -> Callable[[], None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    return lambda: setattr(owner, name, before)


def _set_tf32(allowed: bool) -> Callable[[], None]:
    """Set PyTorch's old and new switches of each kind, so that both give one answer whichever is read.

    PyTorch allows convolutions TF32 by default. The old matrix switch also sets the CPU's, which stays at float32.
    """
    cudnn = torch.backends.cudnn
    gpu: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
    cpu: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = [(kind, kind.fp32_precision) for kind in (*gpu, cpu)]
    matmul, conv = _read(torch.get_float32_matmul_precision), _read(lambda: cudnn.allow_tf32)
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    cudnn.allow_tf32 = allowed
    for kind in gpu:
        kind.fp32_precision = "tf32" if allowed else "ieee"
    cpu.fp32_precision = "ieee"

    def put_back() -> None:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if conv is not None:
            cudnn.allow_tf32 = conv
        for kind, value in before:
            kind.fp32_precision = value

    return put_back


def _read(switch: Callable[[], Any]) -> Any:
    """The value of an old switch; None if the new ones have a combination that it cannot express (reading raises)."""
    try:
        return switch()
    except RuntimeError:
        return None


def _set_deterministic(wanted: bool) -> Callable[[], None]:
    """Deterministic algorithms, and the fixed workspace without which cuBLAS does not repeat its sums."""
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    added = wanted and _WORKSPACE not in os.environ
    if added:
        os.environ[_WORKSPACE] = ":4096:8"
    torch.use_deterministic_algorithms(wanted)

    def put_back() -> None:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        if added:
            os.environ.pop(_WORKSPACE, None)

    return put_back
