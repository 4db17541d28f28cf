"""Losses collected on the device and read by the host later, so that no step waits for the device."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastreg.distributed import World
from fastreg.errors import SharedError


class AsyncAllReduce:
    """Sums over all ranks that the host reads later: ``send`` starts one, ``received`` returns those that are ready."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.in_flight: list[tuple[torch.Tensor, torch.cuda.Event | None, Any]] = []

    def send(self, values: torch.Tensor, note: Any = None) -> None:
        """Start the sum of ``values`` (on the device; overwritten); ``note`` is returned beside the sums."""
        if self.world.size > 1:
            dist.all_reduce(values)
        host, event = values, None
        if values.is_cuda:
            host = torch.empty(values.shape, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self.in_flight.append((host, event, note))

    def received(self, wait: bool = False) -> list[tuple[list[float], Any]]:
        """``(sums, note)`` in the order sent; the same on all ranks.

        On a GPU the newest sum is returned only after a later ``send``, unless ``wait``: reading it would stop the
        stream.
        """
        keep = 0 if wait or self.world.device.type != "cuda" else 1
        count = max(len(self.in_flight) - keep, 0)
        ready, self.in_flight = self.in_flight[:count], self.in_flight[count:]
        for _, event, _ in ready:
            if event is not None:
                event.synchronize()
        return [(host.tolist(), note) for host, _, note in ready]


class LossBuffer:
    """The losses of ``length`` steps in one device tensor, sent to the host when it is full."""

    def __init__(self, length: int, world: World, checkpoint: Path) -> None:
        self.length, self.world, self.checkpoint = length, world, checkpoint
        self.values = torch.zeros(length, device=world.device)
        self.rows: list[dict[str, Any]] = []
        self.sums = AsyncAllReduce(world)

    def add(self, loss: torch.Tensor) -> None:
        """Add a micro-batch's share of the current step's loss (a scalar on the device)."""
        self.values[len(self.rows)] += loss.detach()

    def end_step(self, row: dict[str, Any]) -> None:
        """End a step; ``row`` is its log row without the loss."""
        self.rows.append(row)

    @property
    def full(self) -> bool:
        return len(self.rows) == self.length

    def flush(self, wait: bool = False) -> list[dict[str, Any]]:
        """Send the buffer, and return the rows whose sums are ready; ``loss`` is the mean over all ranks."""
        if self.rows:
            self.sums.send(self.values, self.rows)
            self.values, self.rows = torch.zeros_like(self.values), []
        return [
            {**row, "loss": loss / self.world.size}
            for losses, rows in self.sums.received(wait)
            for row, loss in zip(rows, losses)
        ]

    def diverged(self, problem: str, row: dict[str, Any]) -> SharedError:
        """The error of a run whose loss or weights are not finite at the step of ``row``."""
        last = self.checkpoint
        then = "start again with `resume` auto: there is no checkpoint yet."
        if last.is_file():
            then = (
                f"continue with `resume` {shlex.quote(str(last.parent))} and `allow_changes`; {last} was saved before "
                "this step."
            )
        return SharedError(
            f"{problem} at step {row['step']} (epoch {row['epoch'] + 1}, learning rate {row['lr']:g}): lower `lr` or "
            f"set `clip_grad`, then {then}"
        )
