"""The corruptions on the compiled CPU route, a file per family, each function equal to its reference to the bit.

Every kernel works image by image, in the order of operations of the reference, on buffers of one image.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from fastreg.kernels.dispatch import use_compiled, use_triton


def routed(triton: Callable[..., Any], name: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the same arguments that runs ``triton``, the compiled ``name``, or ``reference``.

    ``name`` is "file.function" of this folder; the file, which imports numba, is loaded with the first call. The first
    tensor among the arguments decides.
    """
    file, function = name.split(".")

    def call(*arguments: Any, **named: Any) -> Any:
        first = next(x for x in (*arguments, *named.values()) if isinstance(x, Tensor))
        if use_triton(first):
            return triton(*arguments, **named)
        if use_compiled(first):
            return getattr(import_module(f"{__name__}.{file}"), function)(*arguments, **named)
        return reference(*arguments, **named)

    return call
