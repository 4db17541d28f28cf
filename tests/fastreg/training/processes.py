"""Training in several processes, started by torchrun."""

from __future__ import annotations

import subprocess
import sys

from tests.support import environment

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def start_torchrun(*words: object) -> subprocess.Popen[str]:
    """Start torchrun with these words on its command line."""
    pipe = subprocess.PIPE
    return subprocess.Popen([*TORCHRUN, *map(str, words)], env=environment(), stdout=pipe, stderr=pipe, text=True)


def outputs(*children: subprocess.Popen[str]) -> list[str]:
    """The standard output of each child; asserts that all of them end with exit code 0."""
    try:
        printed = [child.communicate(timeout=120) for child in children]
    finally:
        for child in children:
            child.kill()
    for child, (_, errors) in zip(children, printed):
        assert child.returncode == 0, errors
    return [out for out, _ in printed]
