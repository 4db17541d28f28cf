"""Fixtures of all tests of the package."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from fastreg.log import log


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """Messages of the logger from INFO on, whether or not the command line has taken it over."""
    handler, level = _Lines(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler.lines
    log.removeHandler(handler)
    log.setLevel(level)
