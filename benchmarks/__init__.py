"""Benchmarks of fastreg, its peers and a copy of the same bytes: :func:`run` measures a suite. Imports are lazy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastreg.benchmarks.runner import run

__all__ = ["run"]

RESULTS = Path(__file__).resolve().parent / "results"


def __getattr__(name: str) -> Any:
    if name != "run":
        raise AttributeError(f"module 'fastreg.benchmarks' has no attribute {name!r}")
    from fastreg.benchmarks.runner import run

    return run
