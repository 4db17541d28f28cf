"""Local copies of remote files: whole files, downloaded once, up to a size limit."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastreg.errors import InputError, RunError
from fastreg.log import log
from fastreg.pipelines.address import RemoteFiles, Shard, is_address
from fastreg.pipelines.retry import retried

BLOCK = 1 << 20  # bytes read at once
LIMIT_GB = 100.0


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The folder of cached shards and indexes: ``cache_dir``, else ``$FASTREG_CACHE``, else the user's cache folder."""
    if cache_dir is not None:
        return Path(cache_dir)
    if os.environ.get("FASTREG_CACHE"):
        return Path(os.environ["FASTREG_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastreg"


class ShardCache:
    """Whole remote files on the local disk. Several processes may share one folder.

    The least recently used files are removed when the folder exceeds its limit. A file that is being read stays
    readable until it is closed.

    Args:
        cache_dir: Its folder; by default see ``cache_folder``.
        cache_gb: Limit in GB (1e9 bytes); by default ``$FASTREG_CACHE_GB``, else 100.

    Raises:
        InputError: The limit is not a positive number.
    """

    def __init__(self, cache_dir: str | Path | None = None, cache_gb: float | None = None):
        self.folder = cache_folder(cache_dir) / "shards"
        given: Any = os.environ.get("FASTREG_CACHE_GB", LIMIT_GB) if cache_gb is None else cache_gb
        try:
            self.limit = int(float(given) * 1e9)
        except (ValueError, OverflowError):
            self.limit = 0
        if self.limit <= 0:
            raise InputError(f"`cache_gb` is {given}: give a positive number of gigabytes.")
        self._remote: dict[str, RemoteFiles] = {}

    def local_path(self, shard: Shard) -> Path:
        """The path of the local copy of a file; for a local file, its own path.

        Raises:
            InputError: The file does not exist, or is larger than the limit.
            RunError: The download fails, or the disk cannot be written.
        """
        if not is_address(shard.path):
            return Path(shard.path)
        key = hashlib.sha256(f"{shard.path}\0{shard.size}\0{shard.token}".encode()).hexdigest()[:20]
        path = self.folder / (key + "-" + re.sub("[^!-.0-~]", "_", shard.name)[-80:])
        try:
            os.utime(path)  # the time of use
            return path
        except FileNotFoundError:
            pass
        if shard.size > self.limit:
            raise InputError(
                f"{shard.path} has {shard.size / 1e9:,.2f} GB and the cache holds {self.limit / 1e9:,.2f}: raise "
                "`cache_gb` (or FASTREG_CACHE_GB)."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / f".{key[:2]}.lock"):
                if not path.exists():
                    self._make_room(max(0, shard.size))
                    partial = path.with_name(f".{path.name}.part")
                    self._download(shard, partial)
                    os.replace(partial, path)
        except FileNotFoundError:
            raise InputError(f"{shard.path} does not exist any more: restore it.") from None
        except OSError as error:
            raise RunError(
                f"cannot keep a copy of {shard.path} in {self.folder}: {error.strerror or error}; free some space, or "
                "set `cache_dir` (or FASTREG_CACHE) to another folder."
            ) from None
        self._make_room(0)
        return path

    def fits(self, shards: Iterable[Shard]) -> bool:
        """Whether copies of all remote files among ``shards`` fit into the limit."""
        return sum(max(0, shard.size) for shard in shards if is_address(shard.path)) <= self.limit

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        """Bytes of a file. Raises OSError if there are fewer."""
        for _ in range(8):  # another process may remove the copy between the two steps
            path = self.local_path(shard)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if not is_address(shard.path):
                    raise
                continue
            try:
                there = max(0, os.fstat(descriptor).st_size - offset)
                data = os.pread(descriptor, min(size, there), offset)  # memory for bytes that are there
            finally:
                os.close(descriptor)
            if len(data) != size:
                raise OSError(f"{shard.path} ends after {len(data)} of {size} bytes at {offset}")
            return data
        raise RunError(f"{self.folder} is too small for the processes that use it: raise `cache_gb`.")

    def _download(self, shard: Shard, partial: Path) -> None:
        """Download the whole file to ``partial``, which keeps received bytes between tries."""
        scheme = shard.path.split("://")[0]
        remote = self._remote.setdefault(scheme, RemoteFiles(shard.path))
        continued = False

        def attempt() -> None:
            nonlocal continued
            done = partial.stat().st_size if partial.exists() else 0
            continued = continued or done > 0
            if 0 <= shard.size < done:
                partial.unlink()
                done = 0
            most = shard.size if shard.size >= 0 else self.limit
            for block in remote.blocks(shard.path, done, BLOCK):
                done += self._append(partial, block)
                if done > most:  # it might never end
                    partial.unlink()
                    raise ConnectionError(f"it sends more than {most:,} bytes")
            if shard.size >= 0 and done != shard.size:
                raise ConnectionError(f"it stopped at {done:,} of {shard.size:,} bytes")

        log.debug("downloading %s", shard.path)
        partial.touch()
        retried(attempt, f"cannot download {shard.path}")
        # the parts may be of two versions; other file systems than HTTP look at a file's version themselves
        if continued and remote.is_http and shard.token and remote.describe(shard.path) != shard:
            partial.unlink()
            raise InputError(f"{shard.path} was replaced while it was downloaded: start again, with its new version.")

    def _append(self, partial: Path, block: bytes) -> int:
        try:
            with open(partial, "ab") as file:
                return file.write(block)
        except OSError as error:  # a disk error: another try does not help
            raise RunError(
                f"cannot write to {self.folder}: {error.strerror}; free some space, or set `cache_dir` "
                "(or FASTREG_CACHE) to another folder."
            ) from None

    def _make_room(self, size: int) -> None:
        """Remove the least recently used copies until ``size`` more bytes fit into the limit."""
        with _locked(self.folder / ".lock"):
            kept = []
            for entry in os.scandir(self.folder):
                if not entry.name.startswith("."):
                    facts = entry.stat()
                    kept.append((facts.st_mtime_ns, facts.st_size, entry.path))
            total = sum(bytes_ for _, bytes_, _ in kept) + size
            for _, bytes_, path in sorted(kept)[: len(kept) - (size == 0)]:
                if total <= self.limit:
                    return
                Path(path).unlink(missing_ok=True)
                total -= bytes_


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
