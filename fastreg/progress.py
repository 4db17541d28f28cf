"""One progress bar for every long step: images per second and time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Counts units and shows them; on a terminal as a bar, elsewhere as a plain line every ``every`` seconds."""

    def __init__(self, title: str, total: int | None, unit: str = "images", every: float = 10.0, done: int = 0):
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.done = self.first = done
        self.start = self.last = time.monotonic()
        self.note, self._printed = "", (done, "")
        self._bar = None
        if sys.stderr.isatty() and int(os.environ.get("RANK", "0")) == 0:
            self._bar = _rich_bar(title, total, unit, done)

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self.first) / max(time.monotonic() - self.start, 1e-9)

    def advance(self, units: int, note: str = "") -> None:
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
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar[0].stop()
        elif (self.done, self.note) != self._printed:
            self._line()


@contextmanager
def progress(title: str, total: int | None, unit: str = "images", done: int = 0) -> Iterator[Progress]:
    """``with progress("train", 1000) as bar: bar.advance(64, note="loss 2.3")``; silent on ranks above 0."""
    bar = Progress(title, total, unit, done=done)
    try:
        yield bar
    finally:
        bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _rich_bar(title: str, total: int | None, unit: str, done: int):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
    bar.start()
    return bar, bar.add_task(title, total=total, completed=done, rate=f"- {unit}/s", note="")
