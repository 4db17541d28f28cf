"""Evaluation: a model's whole robustness and uncertainty card from one call. Exports are lazy (no torch on import)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastreg.evaluation.engine import evaluate
    from fastreg.evaluation.load_model import load_classifier
    from fastreg.evaluation.scorecard import Scorecard
    from fastreg.evaluation.suites import SUITES

_EXPORTS = {
    "evaluate": "fastreg.evaluation.engine",
    "load_classifier": "fastreg.evaluation.load_model",
    "Scorecard": "fastreg.evaluation.scorecard",
    "SUITES": "fastreg.evaluation.suites",
}

__all__ = ["evaluate", "load_classifier", "Scorecard", "SUITES"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'fastreg.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
