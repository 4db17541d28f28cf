"""Setting ``log_tensorboard``: the scalars of a run for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fastreg.errors import InputError, extra


class Scalars(Protocol):
    """As much of TensorBoard's SummaryWriter as a run uses."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


def open_tensorboard(folder: Path, first_step: int) -> Scalars:
    """A writer for a run folder; scalars from ``first_step`` on that an earlier start wrote are purged.

    Raises:
        InputError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(f"`log_tensorboard` needs TensorBoard: {extra('tensorboard')}.") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
