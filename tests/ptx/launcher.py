"""The emulator behind Triton's launcher, whose binder specializes the arguments and whose compiler makes the PTX."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime import driver, jit

from fastreg.kernels import dispatch
from tests.ptx.emulator import Emulator, extent

_aten = torch.ops.aten
_EMPTY = (_aten.empty, _aten.empty_like, _aten.new_empty, _aten.empty_strided, _aten.new_empty_strided)


class _Device:
    """As much of a driver as the launcher needs."""

    def __init__(self, emulator: Emulator):
        self.emulator = emulator

    def get_current_device(self) -> int:
        return self.emulator.number

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.emulator.target


class Poisoned(TorchDispatchMode):
    """Fills the memory that ``torch.empty`` returns with ``byte``."""

    def __init__(self, byte: int):
        super().__init__()
        self.byte = byte

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in _EMPTY and out.numel():
            lo, hi = extent(out)
            ctypes.memset(lo, self.byte, hi - lo)
        return out


@contextmanager
def emulating(emulator: Emulator) -> Iterator[Emulator]:
    """Inside, CPU tensors go to Triton, and launches to the emulator."""
    run = jit.JITFunction.run

    def compile_only(kernel, key, signature, device, constants, options, attributes, warmup):
        made = emulator.compile(kernel, signature, constants, options, attributes)
        kernel.device_caches[device][0][key] = made
        return made

    def emulate(kernel, *args, grid, warmup, **options):
        made = run(kernel, *args, grid=grid, warmup=True, **options)
        given = {name: value for name, value in options.items() if name in kernel.signature.parameters}
        bound = kernel.signature.bind(*args, **given)
        bound.apply_defaults()
        size = grid(bound.arguments) if callable(grid) else grid
        emulator.launch(kernel, made, tuple(size), dict(bound.arguments))
        return made

    with (
        mock.patch.object(jit.JITFunction, "run", emulate),
        mock.patch.object(jit.JITFunction, "_do_compile", compile_only),
        mock.patch.object(CUDABackend, "make_cubin", return_value=b""),  # ptxas would take most of the time
        mock.patch.object(driver, "_active", _Device(emulator)),
        mock.patch.object(dispatch, "INTERPRETED", True),
    ):
        yield emulator
