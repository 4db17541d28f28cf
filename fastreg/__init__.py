"""fastreg: regularised ImageNet training and robustness evaluation at full GPU speed.

Exports are lazy, so that ``fastreg --help`` imports no torch.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from fastreg.version import __version__

# In a source checkout the sibling folders kernels/, pipelines/, cli/ and benchmarks/ are subpackages too;
# an installed copy has them below this folder already.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "kernels").is_dir():
    __path__.append(str(_root))

if TYPE_CHECKING:
    from fastreg.kernels.types import Batch, Plan, Targets

_TYPES = ("Batch", "Plan", "Targets")
_MODULES = (
    "benchmarks",
    "evaluation",
    "kernels",
    "methods",
    "metrics",
    "models",
    "pipelines",
    "recipes",
    "report",
    "training",
)

__all__ = ["Batch", "Plan", "Targets", "__version__"]


def __getattr__(name: str):
    if name in _TYPES:
        return getattr(importlib.import_module("fastreg.kernels.types"), name)
    if name in _MODULES:
        return importlib.import_module(f"fastreg.{name}")
    raise AttributeError(f"module 'fastreg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_TYPES, *_MODULES])
