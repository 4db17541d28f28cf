"""Training: :func:`make_config` chooses the settings, :func:`train` runs them. Imports are lazy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastreg.training.config import Config
from fastreg.training.run_config import make_config

if TYPE_CHECKING:
    from fastreg.training.trainer import train

__all__ = ["Config", "make_config", "train"]


def __getattr__(name: str) -> Any:
    if name != "train":
        raise AttributeError(f"module 'fastreg.training' has no attribute {name!r}")
    from fastreg.training.trainer import train

    return train
