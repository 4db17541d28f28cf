"""The two errors a user may see: each carries one sentence that says what was wrong and what to do next."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path

from fastreg.version import DISTRIBUTION


class InputError(ValueError):
    """Bad usage or bad input (a flag, a name, a file): exit code 2."""


class RunError(RuntimeError):
    """The work itself failed (a full disk, a broken image, a NaN loss): exit code 1."""


class SharedError(RunError):
    """A failure that all processes of a run meet after the same step, so that one of them is enough to tell it."""


def extra(name: str) -> str:
    """The command that installs an extra of fastreg; in a checkout with its pinned versions, which keep torch."""
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / "constraints.txt").is_file():
        return f'pip install "{DISTRIBUTION}[{name}]"'
    here = Path() if checkout == Path.cwd() else checkout  # it is typed where it was read
    return f"pip install -c {shlex.quote(str(here / 'constraints.txt'))} -e {shlex.quote(f'{here}[{name}]')}"


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in ``known``: lists what is, and suggests the nearest."""
    known = list(known)
    folded = {one.casefold(): one for one in known}
    nearest = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.4)
    hint = f"; did you mean {folded[nearest[0]]!r}?" if nearest else "."
    return InputError(f"unknown {kind} {name!r}: known are {', '.join(known)}{hint}")
