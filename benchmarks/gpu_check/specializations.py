"""Kernel specializations that a call needs, found without a GPU and compiled without a launch.

A recorded call runs on CPU tensors, which ``use_triton`` sends to the Triton route. The launcher stops before it
compiles. By then it has bound the arguments, so types, constants and alignment are known. Outputs stay uninitialized.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastreg.kernels import dispatch

_NO_DEVICE = 7000  # device numbers that no GPU has: Triton keeps one cache of kernels per device


class Specialization(NamedTuple):
    """One compilation of a kernel; ``key`` is the same in every process."""

    key: str
    source: Any  # triton's ASTSource
    target: Any
    options: dict[str, Any]

    def compile(self) -> None:
        """Compile into Triton's cache, the C launcher of older releases included."""
        import torch
        import triton

        kernel = triton.compile(self.source, target=self.target, options=self.options)
        if torch.cuda.is_available():
            with contextlib.suppress(Exception):  # without it, the first launch builds the launcher
                triton.runtime.driver.active.launcher_cls(self.source, kernel.metadata)


@contextlib.contextmanager
def recording(capability: int) -> Iterator[dict[str, Specialization]]:
    """Collect by key the specializations that the block needs on a GPU of this capability (90 for an H100)."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime import driver, jit

    target = GPUTarget("cuda", capability, 32)
    found: dict[str, Specialization] = {}

    class Driver:
        """The driver functions that Triton's launcher calls before it compiles."""

        def get_current_device(self) -> int:
            return _NO_DEVICE + capability

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_current_target(self) -> GPUTarget:
            return target

    def stop(
        kernel: Any, key: Any, signature: Any, device: Any, constants: Any, options: Any, attrs: Any, *_: Any
    ) -> None:
        source = ASTSource(kernel, signature, constants, attrs)
        text = f"{kernel.fn.__module__}.{kernel.fn.__qualname__} {source.hash()} {options.hash()} {capability}"
        one = Specialization(hashlib.sha256(text.encode()).hexdigest(), source, target, dict(options.__dict__))
        found.setdefault(one.key, one)

    before = dispatch.INTERPRETED, driver._active, jit.JITFunction._do_compile
    dispatch.INTERPRETED, driver._active, jit.JITFunction._do_compile = True, Driver(), stop
    try:
        yield found
    finally:
        dispatch.INTERPRETED, driver._active, jit.JITFunction._do_compile = before
