"""fastreg trains ImageNet-scale classifiers with strong regularization, and measures their robustness and uncertainty.

    fastreg.train(config)                   train a classifier; settings come from fastreg.training.make_config
    fastreg.evaluate(model, suites, data)   measure a classifier; returns a Scorecard
    fastreg.methods.create_method(name)     a regularization method for your own training loop
    fastreg.models.create_model(name, ...)  a model
    fastreg.pipelines.open_dataset(...)     a data set; make_loader gives its batches
    fastreg.kernels                         the operations on images and logits

Exports are lazy, so that ``fastreg --help`` imports no torch.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastreg.version import __version__

# In a source checkout the sibling folders kernels/, pipelines/, cli/ and benchmarks/ are subpackages too;
# an installed copy has them below this folder already.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "kernels").is_dir():
    __path__.append(str(_root))

if TYPE_CHECKING:
    from fastreg.evaluation import evaluate
    from fastreg.kernels.types import Batch, Plan, Targets
    from fastreg.training import train

_EXPORTS = {
    "Batch": "fastreg.kernels.types",
    "Plan": "fastreg.kernels.types",
    "Targets": "fastreg.kernels.types",
    "evaluate": "fastreg.evaluation",
    "train": "fastreg.training",
}
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

__all__ = ["train", "evaluate", "Batch", "Plan", "Targets", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"fastreg.{name}")
    raise AttributeError(f"module 'fastreg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS, *_MODULES])
