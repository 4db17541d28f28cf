"""Training: ``Config`` and ``make_config`` say what, ``train`` does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastreg.training.config import Config, make_config

__all__ = ["Config", "make_config", "train"]


def train(config: Config, **options: Any) -> Path:
    """See :func:`fastreg.training.trainer.train`; imported late, since it needs torch."""
    from fastreg.training.trainer import train as run

    return run(config, **options)
