"""Training: :func:`make_config` chooses the settings, :func:`train` runs them."""

from __future__ import annotations

from pathlib import Path

from fastreg.training.config import Config, make_config

__all__ = ["Config", "make_config", "train"]


def train(config: Config, *, resume: str | None = None, allow_changes: bool = False) -> Path:
    """Train a model and write a run folder; see :func:`fastreg.training.trainer.train`, which this imports late."""
    from fastreg.training.trainer import train as run

    return run(config, resume=resume, allow_changes=allow_changes)
