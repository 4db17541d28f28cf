"""Scalars of a run for Weights & Biases (``log_wandb``), beside those for TensorBoard.

The project is that of the environment variable WANDB_PROJECT, or "fastreg". WANDB_MODE=offline writes to the run folder
only; ``wandb sync`` sends such a run later.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from fastreg import files
from fastreg.errors import InputError, extra


class WandbScalars:
    """A run of Weights & Biases with the methods of TensorBoard's SummaryWriter.

    Args:
        folder: the run folder. Its file wandb-id names the run, so that a resumed run continues it.
        settings: the content of config.json.

    Raises:
        InputError: wandb is not installed, or cannot start a run.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError(f"`log_wandb` needs wandb: {extra('wandb')}.") from error
        stored = folder / "wandb-id"
        name = stored.read_text().strip() if stored.is_file() else uuid.uuid4().hex[:12]
        project = os.environ.get("WANDB_PROJECT", "fastreg")
        try:
            self.run: Any = wandb.init(
                project=project, name=folder.name, id=name, resume="allow", dir=str(folder), config=settings
            )
        except Exception as error:  # of wandb's many kinds: no key, no network, no permission
            why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InputError(
                f"`log_wandb` cannot start a run ({why}): log in with `wandb login`, or set WANDB_MODE=offline."
            ) from error
        files.atomic_write(stored, name + "\n")
        self.step = 0
        self.row: dict[str, float] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Log a number; those of one step are sent together."""
        if global_step != self.step:
            self._send()
        self.step = global_step
        self.row[tag] = scalar_value

    def close(self) -> None:
        """Send what is left, and end the run."""
        self._send()
        self.run.finish()

    def _send(self) -> None:
        if self.row:
            self.run.log(self.row, step=self.step)
        self.row = {}
