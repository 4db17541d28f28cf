"""SIGINT and SIGTERM as a wish to stop, which all processes of a run follow after the same step."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fastreg.distributed import World
from fastreg.training.loss_log import AsyncAllReduce

PATIENCE = 5.0  # seconds in which signals count as one: a terminal and torchrun, or a scheduler, send the same twice
SECONDS, STEPS = 1.0, 20  # processes tell each other of their wish about once a second, at least every 20 steps


class GracefulShutdown:
    """Ask it after every step: ``stopping()`` is True, on all processes at once, when one of them was told to stop."""

    def __init__(self, place: World):
        self.place, self.exchange = place, AsyncAllReduce(place)
        self.signalled_at: float | None = None  # when the first signal came
        self.agreed = False
        self.steps, self.every, self.since = 0, 1, time.monotonic()

    def receive(self, number: int, frame: Any) -> None:
        """The signals' handler: one that comes when the run has had time to save interrupts it where it stands."""
        now = time.monotonic()
        if self.signalled_at is not None and now - self.signalled_at > PATIENCE:
            raise KeyboardInterrupt
        self.signalled_at = now if self.signalled_at is None else self.signalled_at

    def __call__(self, wait: bool = False) -> bool:
        """``wait`` for the others' answer (where the host waits anyway), else it is theirs of a second ago."""
        if self.place.size == 1:
            return self.signalled_at is not None
        self.steps += 1
        if wait or self.steps >= self.every:
            now = time.monotonic()
            values = torch.zeros(2, device=self.place.device)
            values[0], values[1] = float(self.signalled_at is not None), (now - self.since) / self.steps
            self.exchange.send(values)
            self.steps, self.since = 0, now
            for (wishes, seconds), _ in self.exchange.arrived(wait):
                self.agreed = self.agreed or wishes > 0
                self.every = min(max(int(SECONDS * self.place.size / max(seconds, 1e-9)), 1), STEPS)
        return self.agreed


@contextmanager
def stop_signals(place: World) -> Iterator[GracefulShutdown]:
    """Signals ask for a stop inside this block, and do again what they did before behind it."""
    stopping, previous = GracefulShutdown(place), {}
    with contextlib.suppress(ValueError):  # signals belong to the main thread; elsewhere there are none to catch
        previous = {number: signal.signal(number, stopping.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
