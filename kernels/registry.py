"""One row per operation: the parity tests, the compile tests and the benchmarks iterate over ``operations()``.

An operation's module lists its rows in ``OPS``; a new module is added to ``_MODULES``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One compilation of a kernel, as its launcher asks for it: ``tests/kernels/test_launches.py`` compares the two."""

    label: str
    kernel: Any  # the @triton.jit function
    signature: dict[
        str, str
    ]  # argument: Triton type ("*bf16", "i32", "fp32"); pointers are taken to be 16-byte aligned
    constants: dict[str, Any]  # argument: constexpr
    elements: int  # of work per program, to count instructions by
    warps: int = 4
    divisible: tuple[str, ...] = ()  # integer arguments that are multiples of 16
    kind: str = "stream"  # "stream": vector loads and stores, no byte loads; "gather"; "compute"
    flags: int = 0  # one-byte loads per program that are scalars (a sample's flip, say)
    fusion: bool = True  # whether a multiplication and an addition may become one rounding


@dataclass(frozen=True)
class Op:
    """An operation: ``triton`` and ``reference`` take the keyword arguments that ``example`` makes, and agree.

    ``example(device, small=True)`` gives a quick case with odd corners, or the benchmark's case; the tensors it makes
    are on ``device``. ``bytes(arguments)`` is what the operation must move at least. ``tolerance`` is absolute;
    ``rare`` is the share of elements that may exceed it, by at most ``rare_tolerance``.
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


_MODULES = (
    "augmentation.registry",
    "cross_entropy.registry",
    "attacks.registry",
    "color.registry",
    "corruptions.registry",
    "corruptions.pixel_registry",
)


def operations() -> list[Op]:
    """Every registered operation, in the order of the modules."""
    return [op for name in _MODULES for op in importlib.import_module(f"fastreg.kernels.{name}").OPS]
