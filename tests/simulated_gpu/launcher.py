"""Triton's launcher up to the driver: arguments bound and specialized, and the limits of a real launch checked."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as triton_compile
from triton.runtime import driver, jit

from tests.simulated_gpu.gpu import Gpu, GpuError

LIMITS = (2**31 - 1, 65_535, 65_535)  # of a grid's x, y and z
TARGET = GPUTarget("cuda", 90, 32)


class Launch(NamedTuple):
    kernel: str
    grid: tuple[int, int, int]
    request: tuple[Any, ...]  # what is compiled: kernel, types, constants, alignment, options


class Driver:
    """The driver functions that Triton's launcher calls before it compiles. No real device has this number."""

    def get_current_device(self) -> int:
        return 78

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return TARGET


def data_ptr(t: torch.Tensor) -> int:
    """The address of a tensor whose storage begins at a multiple of 512 bytes, as the device's allocator gives it."""
    return 2**40 + t.storage_offset() * t.element_size()


def check_grid(kernel: str, grid: tuple[int, ...]) -> tuple[int, int, int]:
    """The grid's three sides. Raises GpuError for one that the driver refuses."""
    sides = (*grid, *(1,) * (3 - len(grid)))
    for axis, side, limit in zip("xyz", sides, LIMITS):
        if not 0 < side <= limit:
            raise GpuError(f"{kernel}: grid {sides} is outside 1 to {limit:,} along {axis}")
    return sides


@functools.cache
def _compiled() -> dict[Any, Any]:
    return {}


def install(patch: Any, gpu: Gpu, compiles: bool = False) -> None:
    """Send Triton's launches to ``gpu``. With ``compiles``, each new specialization is compiled to PTX for sm_90."""
    run = jit.JITFunction.run

    def launch(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        tensors = [v for v in (*args, *options.values()) if isinstance(v, torch.Tensor)]
        for t in tensors:
            if not gpu.on_device(t):
                raise GpuError(f"{kernel.__name__} was given memory of the host, {list(t.shape)}")
        gpu.requested = ()
        run(kernel, *args, grid=grid, warmup=True, **options)
        bound = kernel.signature.bind(*args, **{k: v for k, v in options.items() if k in kernel.signature.parameters})
        bound.apply_defaults()
        sides = check_grid(kernel.__name__, tuple(grid(bound.arguments) if callable(grid) else grid))
        gpu.sweep()
        at = gpu.enqueue()
        for t in tensors:
            gpu.touch(t, at, True, kernel.__name__)
        gpu.launches.append(Launch(kernel.__name__, sides, gpu.requested))

    def compile_once(kernel: Any, key: Any, signature: Any, device: Any, constants: Any, *others: Any) -> None:
        options, attributes, _ = others
        gpu.requested = (kernel.__name__, repr(signature), repr(constants), repr(attributes), repr(options))
        if compiles and gpu.requested not in _compiled():
            source = ASTSource(kernel, signature, constants, attributes)
            _compiled()[gpu.requested] = triton_compile(source, target=TARGET, options=options.__dict__)

    patch.setattr(jit.JITFunction, "run", launch)
    patch.setattr(jit.JITFunction, "_do_compile", compile_once)
    patch.setattr(driver, "_active", Driver())
