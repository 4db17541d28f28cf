"""The one logger of fastreg, and the terminal as its handler.

A library caller configures ``logging.getLogger("fastreg")`` as any other logger; without a handler only warnings show.
The command line calls :func:`log_to_terminal`.
"""

from __future__ import annotations

import logging
import os
import sys

log = logging.getLogger("fastreg")


class TerminalHandler(logging.Handler):
    """Print messages as plain lines to standard output; only rank 0 prints, unless the message is a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or os.environ.get("RANK", "0") == "0":
            print(self.format(record), file=sys.stdout, flush=True)


def log_to_terminal() -> None:
    """Show messages from INFO on in the terminal. Calling it again changes nothing."""
    if not any(isinstance(handler, TerminalHandler) for handler in log.handlers):
        log.addHandler(TerminalHandler())
    log.setLevel(logging.INFO)
    log.propagate = False
