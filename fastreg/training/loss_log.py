"""Losses gathered on the device and read by the host later, so that no step waits for one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastreg.distributed import World
from fastreg.errors import SharedError


class AsyncAllReduce:
    """``send`` starts a sum, ``arrived`` gives what the host may read without waiting for the step in flight."""

    def __init__(self, place: World):
        self.place = place
        self.travelling: list[tuple[torch.Tensor, Any, Any]] = []

    def send(self, values: torch.Tensor, about: Any = None) -> None:
        """Sum ``values`` (on the device; overwritten) over all processes; ``about`` comes back beside the sums."""
        if self.place.size > 1:
            dist.all_reduce(values)
        host, event = values, None
        if values.is_cuda:
            host = torch.empty(values.shape, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self.travelling.append((host, event, about))

    def arrived(self, wait: bool = False) -> list[tuple[list[float], Any]]:
        """``(sums, about)`` in the order sent; from a GPU all but the newest, which comes once another is sent behind
        it, or with ``wait``. Alike on all processes, whoever is ahead."""
        keep = 0 if wait or self.place.device.type != "cuda" else 1
        count = max(len(self.travelling) - keep, 0)
        ready, self.travelling = self.travelling[:count], self.travelling[count:]
        for _, event, _ in ready:
            if event is not None:
                event.synchronize()
        return [(host.tolist(), about) for host, _, about in ready]


class LossBuffer:
    """``length`` steps' losses in one device tensor; a full window travels to the host behind the next one."""

    def __init__(self, length: int, place: World, checkpoint: Path):
        self.length, self.place, self.checkpoint = length, place, checkpoint
        self.values = torch.zeros(length, device=place.device)
        self.rows: list[dict[str, Any]] = []
        self.exchange = AsyncAllReduce(place)

    def add(self, loss: torch.Tensor) -> None:
        """Add a micro-batch's share of the current step's loss (a scalar on the device)."""
        self.values[len(self.rows)] += loss.detach()

    def close_step(self, row: dict[str, Any]) -> None:
        """End a step; ``row`` is its log row, still without the loss."""
        self.rows.append(row)

    @property
    def full(self) -> bool:
        return len(self.rows) == self.length

    def flush(self, wait: bool = False) -> list[dict[str, Any]]:
        """Send the window off and return the rows that have arrived, each with its ``loss``: the mean of all ranks."""
        if self.rows:
            self.exchange.send(self.values, self.rows)
            self.values, self.rows = torch.zeros_like(self.values), []
        return [
            {**row, "loss": loss / self.place.size}
            for losses, rows in self.exchange.arrived(wait)
            for row, loss in zip(rows, losses)
        ]

    def diverged(self, what: str, row: dict[str, Any]) -> SharedError:
        """The error of a run that has left the numbers at the step of ``row``: what to do, and from where."""
        last = self.checkpoint
        then = "start again with --resume auto: there is no checkpoint yet."
        if last.is_file():
            then = f"continue with --resume {shlex.quote(str(last.parent))} --allow-changes; {last} is from before it."
        return SharedError(
            f"{what} at step {row['step']} (epoch {row['epoch'] + 1}, learning rate {row['lr']:g}): lower --lr or set "
            f"--clip-grad, then {then}"
        )
