"""Tests of the Triton kernels in Triton's interpreter: TRITON_INTERPRET=1 must be set before Triton is imported.

Without it nothing here is collected (``tests/conftest.py`` prints why). ``make test`` runs this folder in a pytest
process of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]


def pytest_collection_modifyitems(items):
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker("interpreter")


@pytest.fixture
def wide_blocks(monkeypatch):
    """Fewer and wider programs for the corruptions: the interpreter runs programs one after another."""
    from fastreg.kernels.corruptions import MODULES, fields, layout, pixels

    for module in (layout, fields, pixels, *MODULES):
        for size in {"BLOCK", "PIXELS", "CELLS"} & vars(module).keys():
            monkeypatch.setattr(module, size, 2**16)
