"""Reports: score tables as in the paper, one HTML file, contact sheets. Exports are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastreg.report.html import write_report
    from fastreg.report.leaderboard import write_leaderboard
    from fastreg.report.paper_tables import figure1, paper
    from fastreg.report.sheet import contact_sheet
    from fastreg.report.terminal import print_leaderboard, print_scorecard

_EXPORTS = {
    "write_report": "html",
    "write_leaderboard": "leaderboard",
    "contact_sheet": "sheet",
    "paper": "paper_tables",
    "figure1": "paper_tables",
    "print_scorecard": "terminal",
    "print_leaderboard": "terminal",
}

__all__ = [
    "write_report",
    "write_leaderboard",
    "contact_sheet",
    "paper",
    "figure1",
    "print_scorecard",
    "print_leaderboard",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'fastreg.report' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastreg.report.{_EXPORTS[name]}"), name)
