"""Atomic writes and folder locks: a kill or a full disk at any moment leaves the previous file whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fastreg.errors import InputError, RunError


@contextmanager
def replacing(path: Path | str) -> Iterator[IO[bytes]]:
    """A binary file that takes ``path``'s place when the block ends well, and vanishes when it does not.

    Raises RunError, naming the file and the cause, when the system cannot write it (full disk, no permission).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; what was there before is untouched."
        ) from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def atomic_write(path: Path | str, content: bytes | str) -> None:
    """Write a whole file at once or not at all."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path | str, content: Any) -> None:
    atomic_write(path, json.dumps(content, indent=2, sort_keys=False, default=str) + "\n")


@contextmanager
def lock(folder: Path, other: str = "--name") -> Iterator[None]:
    """Hold a run folder for one writer; a second one gets an InputError, which says to give another ``other``. The lock
    goes with the process."""
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115  held for the run's life
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}; give another folder with --output.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder} is in use by another run: wait for it, or give another {other}.") from None
        for leftover in folder.glob(".*.tmp"):  # of a run that was killed while writing
            leftover.unlink()
        try:
            yield
        finally:
            if {path.name for path in folder.iterdir()} == {".lock"}:  # it failed before it began
                (folder / ".lock").unlink()
                folder.rmdir()
