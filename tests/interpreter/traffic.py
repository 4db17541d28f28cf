"""Launches, memory traffic and host waits of the device route of a corruption, counted on the CPU in the interpreter.

Counted are launches, bytes read and written (each tensor of a launch once) and the largest sum of living tensors.
Operations that would make the host wait for a GPU raise: reading a value, a search for non-zeros, a copy to the host.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import InterpretedFunction

from fastreg import kernels

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal")
VIEWS = (
    "view",
    "slice",
    "select",
    "expand",
    "permute",
    "unsqueeze",
    "squeeze",
    "alias",
    "detach",
    "transpose",
    "split",
)
HOST = ("cpu", "numpy", "item", "tolist", "__bool__", "__int__", "__float__", "__array__", "nonzero")
# callers that may not read a tensor back; the interpreter itself may
WATCHED = (f"{Path(kernels.__file__).parent}/", f"{Path(__file__).parent}/test_")


class Traffic(TorchDispatchMode):
    """Counts ``launches``, ``bytes`` and ``peak``: the most bytes alive at once beyond those at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = self.living = self.peak = 0
        self.kernel = False
        self.known: set[int] = set()

    def launch(self, tensors: list[torch.Tensor]) -> None:
        self.launches += 1
        self.bytes += sum(t.numel() * t.element_size() for t in tensors)

    def own(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if (mark := storage._cdata) in self.known:
            return
        self.known.add(mark)
        size = storage.nbytes()
        self.living += size
        if self.living > self.peak:
            gc.collect()  # the interpreter leaves cycles behind
        self.peak = max(self.peak, self.living)
        weakref.finalize(storage, self._freed, mark, size)

    def _freed(self, mark: int, size: int) -> None:
        self.known.discard(mark)
        self.living -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self.kernel:
            return out
        name = func._schema.name.split("::")[1]
        assert name not in WAITS, f"{name} makes the host wait for the device"
        if name.startswith("index") and any(t.dtype == torch.bool for t in _tensors(args)[1:]):
            raise AssertionError(f"{name} by a mask makes the host wait for the device")
        made = _tensors(out)
        if not func.is_view and name not in VIEWS and not name.startswith(("empty", "new_empty", "_unsafe_view")):
            self.launch(_tensors((args, kwargs)) + [t for t in made if not _inside(t, args)])
        for tensor in made:
            if not _inside(tensor, (args, kwargs)):
                self.own(tensor)
        return out


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _inside(tensor: torch.Tensor, tree) -> bool:
    mark = tensor.untyped_storage()._cdata
    return any(t.untyped_storage()._cdata == mark for t in _tensors(tree))


@contextmanager
def measured() -> Iterator[Traffic]:
    """Count torch operations and interpreted kernels; waiting for the device is an AssertionError."""
    traffic = Traffic()
    run = InterpretedFunction.run

    def launched(self, *args, **kwargs):
        traffic.launch(_tensors((args, kwargs)))
        traffic.kernel = True
        try:
            return run(self, *args, **kwargs)
        finally:
            traffic.kernel = False

    gc.freeze()  # so that collecting while it runs is quick
    try:
        with traffic, mock.patch.object(InterpretedFunction, "run", launched), _no_reading_back(traffic):
            yield traffic
    finally:
        gc.unfreeze()


@contextmanager
def _no_reading_back(traffic: Traffic) -> Iterator[None]:
    def refuse(name: str, method):
        def refused(*args, **kwargs):
            caller = sys._getframe(1).f_code
            if not traffic.kernel and caller.co_filename.startswith(WATCHED):
                raise AssertionError(f"{caller.co_name} calls Tensor.{name}: the host would wait for the device")
            return method(*args, **kwargs)

        return refused

    with mock.patch.multiple(torch.Tensor, **{name: refuse(name, getattr(torch.Tensor, name)) for name in HOST}):
        yield
