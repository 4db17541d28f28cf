"""Graceful shutdown: on SIGINT, SIGTERM or SIGHUP all ranks finish the step, save a checkpoint and exit together."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from fastreg.distributed import World
from fastreg.training.loss_log import AsyncAllReduce

PATIENCE = 5.0  # seconds in which signals count as one: torchrun, or a scheduler, sends the same twice
TYPED = 1.0  # the same for Ctrl-C in a run of one process, where only a person repeats it
SECONDS, STEPS = 1.0, 20  # ranks exchange whether to stop about once a second, and at least every 20 steps


class GracefulShutdown:
    """The decision to stop. Call it after every step: it returns True on all ranks at the same step.

    Args:
        world: this rank.
    """

    def __init__(self, world: World) -> None:
        self.world, self.votes = world, AsyncAllReduce(world)
        self.signalled_at: float | None = None  # time of the first signal to this rank
        self.decided = False
        self.steps, self.every, self.since = 0, 1, time.monotonic()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. It acknowledges the first signal at once; a later signal after a pause interrupts."""
        now = time.monotonic()
        if self.signalled_at is None:
            self.signalled_at = now
            if self.world.rank == 0:
                _acknowledge(number)
            return
        typed = number == signal.SIGINT and self.world.size == 1
        if now - self.signalled_at > (TYPED if typed else PATIENCE):
            raise KeyboardInterrupt

    def __call__(self, wait: bool = False) -> bool:
        """Whether all ranks stop after this step.

        Args:
            wait: wait for the newest exchange (if the host waits anyway); else the answer is about a second old.
        """
        if self.world.size == 1:
            return self.signalled_at is not None
        self.steps += 1
        if wait or self.steps >= self.every:
            now = time.monotonic()
            values = torch.zeros(2, device=self.world.device)
            values[0], values[1] = float(self.signalled_at is not None), (now - self.since) / self.steps
            self.votes.send(values)
            self.steps, self.since = 0, now
            for (signalled, seconds), _ in self.votes.received(wait):
                self.decided = self.decided or signalled > 0
                self.every = min(max(int(SECONDS * self.world.size / max(seconds, 1e-9)), 1), STEPS)
        return self.decided


@contextmanager
def stop_signals(world: World) -> Iterator[GracefulShutdown]:
    """Handle signals by a :class:`GracefulShutdown` inside the block, and by the previous handlers after it.

    SIGHUP stays ignored if it was (nohup). Outside the main thread Python sets no handlers.
    """
    stopping, previous = GracefulShutdown(world), {}
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with contextlib.suppress(ValueError):
        previous = {number: signal.signal(number, stopping.receive) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _acknowledge(number: int) -> None:
    """Write to standard error past Python's buffers, which a signal handler may not enter."""
    again = "; press Ctrl-C again to interrupt" if number == signal.SIGINT else ""
    with contextlib.suppress(OSError):
        os.write(2, f"\nstopping after this step{again}\n".encode())
