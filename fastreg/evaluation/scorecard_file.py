"""The file of a scorecard. An existing card is renamed, never overwritten, if the new card lacks its rows."""

from __future__ import annotations

import os
from pathlib import Path

from fastreg.evaluation.scorecard import Scorecard
from fastreg.evaluation.suites import ROWS
from fastreg.files import atomic_write
from fastreg.log import log


class ScorecardFile:
    """scorecard.json at ``path`` (None: no file). An existing file stays until the first save.

    ``replace_reason``: why the existing scorecard must not be overwritten (another model, other settings); if set, the
    first save renames it.
    """

    def __init__(self, path: Path | None):
        self.path, self.replace_reason = path, ""

    def previous(self) -> Scorecard | None:
        """The existing card, if any."""
        return Scorecard.load(self.path) if self.path is not None and self.path.is_file() else None

    def probe(self) -> None:
        """Raise RunError if the folder cannot be written."""
        if self.path is not None:
            trial = self.path.with_name(f".{self.path.name}.trial")
            atomic_write(trial, "")
            trial.unlink(missing_ok=True)

    def save(self, card: Scorecard) -> None:
        """Write the card. Raises RunError if it cannot be written."""
        if self.path is None:
            return
        if self.replace_reason:
            log.info(f"{self.path}: {self.replace_reason}; that card is now {_set_aside(self.path)}.")
            self.replace_reason = ""
        card.save(self.path)
        for suite in card.suites:
            if suite in ROWS and (write := ROWS[suite].write) is not None:
                write(card, suite, self.path.parent)


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    os.replace(path, aside)
    return aside
