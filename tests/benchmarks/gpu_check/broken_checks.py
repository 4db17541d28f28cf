"""Checks that fail in every way in which a check on a GPU can, for the tests of the worker processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import torch

from fastreg.benchmarks.gpu_check.check import EXACT, Check


def checks(quick: bool = False) -> Iterator[Check]:
    """In order: a pass, a CUDA error, the id of the process that runs next, a crash, a pass, an exception, a wait."""
    yield Check("good", _zero, EXACT)
    yield Check("cuda error", _illegal, EXACT)
    yield Check("after", _process, EXACT, reference=_zero_reference)
    yield Check("crash", _crash, EXACT, reference=_zero_reference)
    yield Check("after the crash", _zero, EXACT)
    yield Check("exception", _raise, EXACT, reference=_zero_reference)
    if not quick:
        yield Check("wait", _wait, EXACT, reference=_zero_reference)
    yield Check("last", _zero, EXACT)


_unusable = False


def _zero(device: torch.device) -> tuple[torch.Tensor]:
    if _unusable:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")  # as every later call on a GPU
    return (torch.zeros(1),)


def _zero_reference() -> tuple[torch.Tensor]:
    return (torch.zeros(1),)


def _illegal(device: torch.device) -> tuple[torch.Tensor]:
    global _unusable
    _unusable = True
    return _zero(device)


def _process(device: torch.device) -> tuple[torch.Tensor]:
    _zero(device)
    return (torch.tensor([float(os.getpid())]),)


def _crash(device: torch.device) -> tuple[torch.Tensor]:
    os.abort()


def _raise(device: torch.device) -> tuple[torch.Tensor]:
    return _deep(3)


def _deep(depth: int) -> tuple[torch.Tensor]:
    if depth:
        return _deep(depth - 1)
    raise ValueError("at 3:4:\nthe cause stands on the second line")


def _wait(device: torch.device) -> tuple[torch.Tensor]:
    time.sleep(600)
    return (torch.zeros(1),)
