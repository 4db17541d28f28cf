"""Losses gathered on the device and read by the host later, so that no step waits for one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastreg.errors import RunError
from fastreg.training.setup import World


class LossWindow:
    """``length`` steps' losses in one device tensor; a full window travels to the host behind the next one.

    The last slot carries each rank's wish to stop, so that all ranks leave at the same step.
    """

    def __init__(self, length: int, place: World, checkpoint: Path):
        self.length, self.place, self.checkpoint = length, place, checkpoint
        self.values = torch.zeros(length + 1, device=place.device)
        self.rows: list[dict[str, Any]] = []
        self.travelling: list[tuple[torch.Tensor, Any, list[dict[str, Any]]]] = []
        self.stop = False

    def add(self, loss: torch.Tensor) -> None:
        """Add a micro-batch's share of the current step's loss (a scalar on the device)."""
        self.values[len(self.rows)] += loss.detach()

    def close_step(self, row: dict[str, Any]) -> None:
        """End a step; ``row`` is its log row, still without the loss."""
        self.rows.append(row)

    @property
    def full(self) -> bool:
        return len(self.rows) == self.length

    def flush(self, wish_to_stop: bool = False, wait: bool = False) -> list[dict[str, Any]]:
        """Send the window off and return the rows that have arrived, each with its ``loss``.

        Raises RunError on the first loss that is not finite.
        """
        if self.rows:
            self.values[-1] = float(wish_to_stop)
            if self.place.size > 1:
                dist.all_reduce(self.values)
            host, event = self.values, None
            if self.values.is_cuda:
                host = torch.empty(self.values.shape, pin_memory=True)
                host.copy_(self.values, non_blocking=True)
                event = torch.cuda.Event()
                event.record()
            self.travelling.append((host, event, self.rows))
            self.values, self.rows = torch.zeros_like(self.values), []
        keep = 0 if wait or not self.values.is_cuda else 1
        arrived: list[dict[str, Any]] = []
        while len(self.travelling) > keep:
            host, event, rows = self.travelling.pop(0)
            if event is not None:
                event.synchronize()
            values = (host / self.place.size).tolist()
            self.stop = self.stop or values[-1] > 0
            for row, loss in zip(rows, values):
                if not math.isfinite(loss):
                    raise self.diverged(f"the loss is {loss}", row)
                arrived.append({**row, "loss": loss})
        return arrived

    def diverged(self, what: str, row: dict[str, Any]) -> RunError:
        """The error of a run that has left the numbers at the step of ``row``: what to do, and from where."""
        last = f"{self.checkpoint} is from before it" if self.checkpoint.is_file() else "there is no checkpoint yet"
        return RunError(
            f"{what} at step {row['step']} (epoch {row['epoch']}, learning rate {row['lr']:g}): lower --lr or set "
            f"--clip-grad, then continue with --resume auto --allow-changes; {last}."
        )
