"""The command line in this process."""

from __future__ import annotations

import sys

import pytest

from fastreg.cli import main


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in an empty folder: ``(exit code, its output, its error text)``."""

    def run(*words) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("FASTREG_DATA", raising=False)
        monkeypatch.setattr(sys, "argv", ["fastreg", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        text = capsys.readouterr()
        return int(left.value.code or 0), text.out, text.err

    return run
