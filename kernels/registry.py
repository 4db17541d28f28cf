"""The registry: one row per operation, which the parity tests, the compile tests and the benchmarks iterate over."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Op", "Variant", "operations"]


@dataclass(frozen=True)
class Variant:
    """One compilation of a kernel, as its launcher requests it. ``tests/kernels/test_launches.py`` compares the two.

    Args:
        label: Name in the table of machine code.
        kernel: The ``@triton.jit`` function.
        signature: Triton type of each argument, such as "*bf16" or "i32". Pointers are 16-byte aligned.
        constants: Value of each constexpr argument.
        elements: Work items per program. Instruction counts are per work item.
        warps: Warps per program.
        divisible: Integer arguments that are multiples of 16.
        kind: "stream": vector loads and stores, no byte loads; "ragged": as stream, with narrower stores at unaligned
            ends; "gather"; "compute".
        flags: One-byte scalar loads per program, such as the flip of a sample.
        fusion: Whether a multiplication and an addition may be contracted to one rounding.
    """

    label: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    elements: int
    warps: int = 4
    divisible: tuple[str, ...] = ()
    kind: str = "stream"
    flags: int = 0
    fusion: bool = True


@dataclass(frozen=True)
class Op:
    """An operation: its Triton route, its reference, and arguments on which the two agree.

    Args:
        name: Name of the row, also in results of benchmarks.
        triton: Function that launches the kernels.
        reference: Function of the same arguments in plain torch.
        example: ``example(device, small=True)`` makes keyword arguments for both: a quick case with odd corners, or the
            case of the benchmark.
        bytes: ``bytes(arguments)`` is the least memory traffic of a call, in bytes.
        aot: Compilations whose machine code is read.
        tolerance: Largest absolute difference.
        rare: Share of elements that may exceed ``tolerance``.
        rare_tolerance: Largest absolute difference of those elements.
        compiled: Function of the same arguments that takes the compiled CPU route for CPU tensors. None: it has none.
        compiled_tolerance: Largest difference of the compiled CPU route, as a share of the largest value of the
            reference. 0: equal to the bit.
    """

    name: str
    triton: Callable[..., Any]
    reference: Callable[..., Any]
    example: Callable[..., dict[str, Any]]
    bytes: Callable[[dict[str, Any]], int]
    aot: tuple[Variant, ...] = field(default=())
    tolerance: float = 0.0
    rare: float = 0.0
    rare_tolerance: float = 0.0
    compiled: Callable[..., Any] | None = None
    compiled_tolerance: float = 0.0


# One row per folder whose registry.py lists its operations in OPS.
_FOLDERS = ("augmentation", "auto_augmentation", "cross_entropy", "attacks", "color", "jpeg", "corruptions")


def operations() -> list[Op]:
    """Every registered operation.

    Returns:
        The rows of every folder in ``_FOLDERS``, in that order.
    """
    return [op for name in _FOLDERS for op in importlib.import_module(f"fastreg.kernels.{name}.registry").OPS]
