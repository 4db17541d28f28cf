"""Benchmarks of fastreg beside peers and the limit of a copy; ``run`` measures a suite. Imports are lazy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["run"]

RESULTS = Path(__file__).resolve().parent / "results"


def run(what: str, **options: Any) -> dict[str, Any]:
    """Measure a suite; see :func:`fastreg.benchmarks.runner.run`."""
    from fastreg.benchmarks import runner

    return runner.run(what, **options)
