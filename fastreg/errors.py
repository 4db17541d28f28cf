"""The errors that a user may see. Each message is one sentence that names the fault and its remedy.

A message names parameters in backquotes; the command line replaces them by its flags.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path

from fastreg.version import DISTRIBUTION


class InputError(ValueError):
    """A parameter, a name or a file that cannot be used. Exit code 2."""


class RunError(RuntimeError):
    """The operation failed: a full disk, a broken image, a loss that is not finite. Exit code 1."""


class SharedError(RunError):
    """A failure raised on every rank at the same step; rank 0 alone prints it."""


def extra(name: str) -> str:
    """The command that installs an extra of fastreg; in a checkout with its pinned versions, so that torch stays."""
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / "constraints.txt").is_file():
        return f'pip install "{DISTRIBUTION}[{name}]"'
    here = Path() if checkout == Path.cwd() else checkout  # relative to the folder in which it will be typed
    return f"pip install -c {shlex.quote(str(here / 'constraints.txt'))} -e {shlex.quote(f'{here}[{name}]')}"


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in ``known``: lists the known names, and suggests the nearest.

    Args:
        kind: the kind of name, such as "model", or a parameter in backquotes.
        name: the name given.
        known: the names that exist.

    Returns:
        The error to raise.
    """
    known = list(known)
    folded = {one.casefold(): one for one in known}
    nearest = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    hint = f"; did you mean {folded[nearest[0]]!r}?" if nearest else "."
    return InputError(f"unknown {kind} {name!r}: known are {', '.join(known)}{hint}")
