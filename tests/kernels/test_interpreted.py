"""Runs tests/kernels/interpreted in a child process, where TRITON_INTERPRET=1 is set before Triton's import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import ROOT, environment

FOLDER = Path(__file__).parent / "interpreted"


def test_kernels_in_the_interpreter():
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "-o",
        "python_files=parity_*.py",
        FOLDER,
    ]
    run = subprocess.run(words, cwd=ROOT, env=environment(TRITON_INTERPRET="1"), capture_output=True, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
