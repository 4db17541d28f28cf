"""The progress bar of long operations: images per second and time left."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastreg.log import write_line


class Progress:
    """Shows progress on standard error: on a terminal as a bar, else as a plain line every ``every`` seconds.

    Args:
        title: name of the operation.
        total: units in all; None if unknown.
        unit: name of the units.
        every: seconds between two lines.
        done: units done before.
    """

    def __init__(self, title: str, total: int | None, unit: str = "images", every: float = 10.0, done: int = 0) -> None:
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.done = self.first = done
        self.start = self.last = time.monotonic()
        self.note, self._printed = "", (done, "")
        self._bar: tuple[Any, Any] | None = None
        if sys.stderr is not None and sys.stderr.isatty() and int(os.environ.get("RANK", "0")) == 0:
            self._bar = _rich_bar(title, total, unit, done)

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self.first) / max(time.monotonic() - self.start, 1e-9)

    def advance(self, units: int, note: str = "") -> None:
        """Count ``units`` more; ``note`` replaces the text behind the rate."""
        self.done += units
        self.note = note or self.note
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, completed=self.done, rate=f"{self.rate:,.0f} {self.unit}/s", note=self.note)
        elif time.monotonic() - self.last >= self.every:
            self._line()

    def _line(self) -> None:
        self.last = time.monotonic()
        if int(os.environ.get("RANK", "0")) != 0:
            return
        of = f"/{self.total:,}" if self.total else ""
        left = f", {_clock((self.total - self.done) / self.rate)} left" if self.total and self.rate else ""
        note = f", {self.note}" if self.note else ""
        self._printed = (self.done, self.note)
        line = f"{self.title}: {self.done:,}{of} {self.unit}, {self.rate:,.0f}/s{left}{note}"
        write_line(sys.stderr, line)

    def close(self) -> None:
        """Show the last state."""
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
                self._bar[0].stop()
        elif (self.done, self.note) != self._printed:
            self._line()


@contextmanager
def progress(title: str, total: int | None, unit: str = "images", done: int = 0) -> Iterator[Progress]:
    """A :class:`Progress` for the length of a block; ranks above 0 show nothing.

    Args:
        title: name of the operation.
        total: units in all; None if unknown.
        unit: name of the units.
        done: units done before.

    Yields:
        The progress bar: ``bar.advance(64, note="loss 2.3")``.
    """
    bar = Progress(title, total, unit, done=done)
    try:
        yield bar
    finally:
        bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _rich_bar(title: str, total: int | None, unit: str, done: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.description}", markup=False),  # titles and notes have names of files
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )
    bar.start()
    return bar, bar.add_task(title, total=total, completed=done, rate=f"- {unit}/s", note="")
