"""The logger of fastreg, and the terminal as its handler.

A library caller configures ``logging.getLogger("fastreg")`` like any other logger; without a handler only warnings are
shown. The command line calls :func:`log_to_terminal`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from typing import TextIO

log = logging.getLogger("fastreg")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and new lines


class TerminalHandler(logging.Handler):
    """Print messages as plain lines to standard output: on rank 0 all messages, on other ranks warnings only."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or os.environ.get("RANK", "0") == "0":
            write_line(sys.stdout, self.format(record))


def log_to_terminal() -> None:
    """Show messages from INFO on in the terminal. Calling it again changes nothing."""
    if not any(isinstance(handler, TerminalHandler) for handler in log.handlers):
        log.addHandler(TerminalHandler())
    log.setLevel(logging.INFO)
    log.propagate = False


def write_line(stream: TextIO | None, line: str) -> None:
    """Write a line to the terminal. A closed stream or a pipe without a reader drops it, so that no run ends there."""
    if stream is None:  # Python was started with the stream closed
        return
    try:
        print(printable(line, stream.encoding), file=stream, flush=True)
    except (OSError, ValueError):
        _discard(stream)


def printable(text: str, encoding: str | None = "utf-8") -> str:
    """A text for a terminal: control characters, which would steer it, and what it cannot show are escaped."""
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def open_closed_streams() -> None:
    """Open the null device for standard streams closed at the start, so that no file gets their descriptors."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor


def _discard(stream: TextIO) -> None:
    """Send everything to the null device from here on; Python would else fail when it flushes the stream at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
