"""The log of a run: settings and environment, log.jsonl with its tables, TensorBoard and W&B. Rank 0 alone writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from fastreg import files, runs
from fastreg.distributed import World
from fastreg.environment import environment
from fastreg.errors import InputError, extra
from fastreg.training.loss_curve import LossCurve, read_curve
from fastreg.training.wandb_log import WandbScalars


class Scalars(Protocol):
    """The methods of TensorBoard's SummaryWriter that a run uses."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


class RunLog:
    """Rows of steps and epochs of one run.

    Args:
        folder: the run folder.
        world: this rank.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.writes = folder, world.rank == 0
        self.rows = runs.Log(folder)
        self.scalars: list[Scalars] = []
        self.curve = LossCurve()
        self._losses: list[float] = []  # of the current epoch
        self._epoch = -1

    @contextmanager
    def open(self, settings: dict[str, Any], position: int, epochs: int, step: int) -> Iterator[None]:
        """Write config.json and environment.json, and keep TensorBoard and W&B open for the length of the block.

        Args:
            settings: the content of config.json; ``log_tensorboard`` and ``log_wandb`` open these two.
            position: images trained; rows of later steps are dropped.
            epochs: epochs trained; rows of later epochs are dropped.
            step: steps trained; TensorBoard drops scalars of later ones.

        Raises:
            InputError: TensorBoard or wandb is not installed, or wandb cannot start.
            RunError: the files cannot be written.
        """
        with ExitStack() as stack:
            if self.writes:
                if settings.get("log_tensorboard"):
                    self.scalars.append(stack.enter_context(closing(open_tensorboard(self.folder, step + 1))))
                if settings.get("log_wandb"):
                    self.scalars.append(stack.enter_context(closing(WandbScalars(self.folder, settings))))
                self._start(settings, position, epochs)
            yield
            self.scalars = []

    def _start(self, settings: dict[str, Any], position: int, epochs: int) -> None:
        files.write_json(self.folder / "config.json", settings)
        files.write_json(self.folder / "environment.json", environment())
        self.curve = read_curve(self.folder)
        since = self.curve.cut(position)
        for row in self.rows.truncate(position, epochs, since):
            self._count(row)
            if row["position"] > since:
                self.curve.add(row)

    def add_steps(self, rows: list[dict[str, Any]]) -> None:
        """Log finished steps."""
        if self.writes and rows:
            self.rows.add("step", rows)
            for row in rows:
                self._count(row)
                self.curve.add(row)
                self._add_scalars(row, ("loss", "lr", "images_per_second", "data_wait"))

    def add_epoch(self, row: dict[str, Any]) -> None:
        """Log a validated epoch."""
        if self.writes:
            self.rows.add("epoch", [row])
            self.curve.save(self.folder)
            self._add_scalars(row, [key for key in row if "loss" in key or "error" in key])

    def train_loss(self, epoch: int) -> float:
        """Mean of the logged losses of an epoch, with those before a resume; nan on ranks that do not write."""
        losses = self._losses if epoch == self._epoch else []
        return sum(losses) / len(losses) if losses else float("nan")

    def _count(self, row: dict[str, Any]) -> None:
        if row["epoch"] != self._epoch:
            self._epoch, self._losses = row["epoch"], []
        self._losses.append(row["loss"])

    def _add_scalars(self, row: dict[str, Any], keys: Iterable[str]) -> None:
        for writer in self.scalars:
            for key in keys:
                writer.add_scalar(key, row[key], row["step"])


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
