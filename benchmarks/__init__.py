"""Benchmarks: ``run`` measures one suite beside its peers and the physical limit; see README.md. Imports are lazy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["run"]

RESULTS = Path(__file__).resolve().parent / "results"


def run(what: str, **options: Any) -> dict[str, Any]:
    """See :func:`fastreg.benchmarks.runner.run`; imported late, since it needs torch."""
    from fastreg.benchmarks.runner import run as go

    return go(what, **options)
