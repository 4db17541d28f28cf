"""Atomic writes and folder locks: a kill or a full disk at any moment leaves the previous file whole."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fastreg.errors import InputError, RunError

_HOST = re.sub(r"\W", "", os.uname().nodename)
_TEMPORARY = re.compile(r"\..+\.(\d+)-(\w*)\.tmp")
_SWEPT: set[str] = set()  # folders


@contextmanager
def replacing(path: Path | str) -> Iterator[IO[bytes]]:
    """Write a binary file that replaces ``path`` if the block succeeds and is removed if it fails.

    Args:
        path: the file to replace; its folder is created.

    Yields:
        The open file.

    Raises:
        RunError: the system cannot write it (full disk, no permission). A previous file stays whole.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{_HOST}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
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
        raise RunError(f"cannot write {path}: {error.strerror or error}; the previous file is untouched.") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove temporary files in a folder that a killed process of this machine left; once per folder and process."""
    key = os.path.realpath(folder)
    if key in _SWEPT:
        return
    _SWEPT.add(key)
    with os.scandir(folder) as entries:
        left = [(entry.path, found) for entry in entries if (found := _TEMPORARY.fullmatch(entry.name))]
    for path, found in left:
        if found[2] == _HOST and not _runs(int(found[1])):
            with suppress(OSError):
                os.unlink(path)


def _runs(pid: int) -> bool:
    """Whether a process of that number runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def atomic_write(path: Path | str, content: bytes | str) -> None:
    """Replace a file by ``content`` (text as UTF-8), completely or not at all. Raises RunError if that fails."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises OSError, ValueError or RecursionError; reading a pipe would never end."""
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return json.loads(Path(path).read_bytes())


def write_json(path: Path | str, content: Any) -> None:
    """Replace a file by ``content`` as indented JSON. Raises RunError if that fails."""
    atomic_write(path, json.dumps(content, indent=2, sort_keys=False, default=str) + "\n")


class InUseError(InputError):
    """Another process has locked a folder."""


@contextmanager
def lock(folder: Path, other: str = "`name`", shard: str | None = None) -> Iterator[None]:
    """Lock a folder for one writer, or for one writer of each shard. The lock ends with the process.

    Args:
        folder: created if it is missing, with its parents. Created folders are removed if nothing is written there.
        other: the parameter (in backquotes) or word that chooses another folder, for the message.
        shard: name of the shard; writers of other shards may then have the folder at the same time.

    Raises:
        InUseError: another process has locked the folder. It is an InputError.
        RunError: the folder cannot be written.
    """
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    path = folder / ".lock"
    with _open_locked(path, other, shared=shard is not None) as file, ExitStack() as stack:
        if shard is None:
            for leftover in folder.glob(".*.tmp"):  # of a run that was killed while writing
                leftover.unlink()
        else:
            own = folder / f".lock-{shard}"
            stack.enter_context(_open_locked(own, other, shared=False))
            stack.callback(own.unlink)
        try:
            yield
        finally:
            stack.close()
            alone = shard is None or _locked(file, shared=False)
            if alone and {entry.name for entry in folder.iterdir()} == {".lock"}:  # it failed before it wrote a file
                path.unlink()
                with suppress(OSError):  # another process has created a file there
                    for created in new or [folder]:
                        created.rmdir()


def _open_locked(path: Path, other: str, shared: bool) -> IO[str]:
    """The locked file ``path``, whose folder is created."""
    folder = path.parent
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "w")  # noqa: SIM115  open for the length of the run
        except (FileNotFoundError, FileExistsError):
            if os.path.lexists(folder) and not folder.is_dir():  # a file, or a link to nothing
                raise RunError(f"cannot write to {folder}: it is no folder; give another one as `output`.") from None
            continue  # another process has just removed the folder, in which nothing had been written
        except OSError as error:
            raise RunError(f"cannot write to {folder}: {error.strerror}; give another folder as `output`.") from error
        if not _locked(file, shared):
            file.close()
            raise InUseError(f"{folder} is in use by another run: wait for it, or give another {other}.")
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()  # the file was removed between the two calls


def _locked(file: IO[str], shared: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
