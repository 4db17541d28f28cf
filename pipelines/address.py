"""Files by address: local paths, patterns, and fsspec addresses such as ``http://``, ``s3://`` or ``memory://``."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.errors import InputError, extra
from fastreg.pipelines import http_files
from fastreg.pipelines.retry import retried

MAX_NAMES = 100_000  # files that one pattern may stand for
PROBES = 16  # threads that ask for the sizes of remote files
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])", re.IGNORECASE)
# What file systems report that changes with a file's content
_TOKENS: tuple[str, ...] = (
    "ETag",
    "etag",
    "Content-MD5",
    "Digest",
    "md5Hash",
    "sha256",
    "blob_id",
    "mtime",
    "LastModified",
)
_TOKENS += ("Last-Modified", "last_modified", "updated", "created")


class Shard(NamedTuple):
    """One file of a data set.

    Attributes:
        path: Local path or address.
        size: Bytes; -1: unknown.
        token: Changes with the file's content, such as its modification time; empty: unknown.
    """

    path: str
    size: int
    token: str = ""

    @property
    def name(self) -> str:
        return self.path.split("?")[0].rsplit("/", 1)[-1]


def normalized(path: str | Path) -> str:
    """A path as text: ``file://`` becomes a local path, and the slashes that ``Path`` merges are restored."""
    text = str(path)
    if text[:5].lower() == "file:":
        return re.sub(r"^file:/*", "/", text, flags=re.IGNORECASE)
    found = _SCHEME.match(text)
    return text if found is None else f"{found[1].lower()}://{text[found.end() :]}"


def is_address(path: str | Path) -> bool:
    """Whether a path is the address of something remote."""
    text = str(path)
    return _SCHEME.match(text) is not None and text[:5].lower() != "file:"


def is_pattern(path: str) -> bool:
    """Whether a path is a pattern for several files. In an address a question mark begins the query."""
    return any(c in path for c in ("*[{" if is_address(path) else "*?[{"))


def expand_braces(pattern: str) -> list[str]:
    """The names that braces stand for.

    Args:
        pattern: ``{000..012}`` stands for numbers of that width, ``{a,b}`` for alternatives.

    Returns:
        The names in order; the pattern itself if it has no braces.

    Raises:
        InputError: There are no names, or more than ``MAX_NAMES``.
    """
    choices: list[Sequence[str]] = []
    count = 1
    for text, inside in re.findall(r"([^{]+|(?<!^)(?=\{)|^(?=\{))(?:\{([^{}]*)\})?", pattern):
        numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
        if numbers:
            low, high = (int(number) for number in numbers.groups())
            count *= max(0, high - low + 1)
            names: Iterable[str] = (str(number).zfill(len(numbers[1])) for number in range(low, high + 1))
        else:
            count *= inside.count(",") + 1
            names = inside.split(",")
        if not 0 < count <= MAX_NAMES:
            raise InputError(f"{pattern!r} stands for no file or for more than {MAX_NAMES:,}: correct its braces.")
        choices.append([text + name for name in names])
    return ["".join(words) for words in itertools.product(*choices)]


class RemoteFiles:
    """The file system of an address. Every call is retried a bounded number of times.

    Files over HTTP are read by the standard library; HTTP listings and all other schemes need fsspec.
    """

    def __init__(self, address: str):
        self.scheme = address.split("://")[0]
        self.is_http = self.scheme in ("http", "https")

    @cached_property
    def files(self) -> Any:
        """The file system of fsspec. Raises InputError if fsspec or its package for the scheme is missing."""
        options: dict[str, Any] = {}
        try:
            import fsspec

            if self.is_http:
                import aiohttp

                seconds = http_files.STALL_SECONDS
                limit = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
                options = {
                    "client_kwargs": {"timeout": limit},
                    "use_listings_cache": False,
                    "skip_instance_cache": True,
                }
            return fsspec.filesystem(self.scheme, **options)
        except ImportError as error:
            raise InputError(
                f"addresses of {self.scheme} need fsspec and its package for them ({error}): {extra('remote')}."
            ) from None
        except ValueError as error:
            raise InputError(f"{self.scheme}:// is not a scheme that fsspec knows ({error}).") from None

    def entries(self, folder: str) -> list[tuple[str, bool, Shard]]:
        """(name, whether it is a folder, file) of the entries of a remote folder; none if there is no such folder."""
        slash = "/" if self.is_http else ""
        try:
            entries = retried(lambda: self.files.ls(folder.rstrip("/") + slash, detail=True), f"cannot list {folder}")
        except (FileNotFoundError, NotADirectoryError):
            return []
        rows = []
        for entry in entries:
            name = str(entry["name"])
            address = name if "://" in name else f"{self.scheme}://{name.lstrip('/')}"
            shard = _shard(address.rstrip("/"), entry)
            rows.append((shard.name, entry["type"] == "directory" or address.endswith("/"), shard))
        return sorted(rows)

    def describe(self, address: str) -> Shard | None:
        """Size and token of a remote file; None if there is none."""
        facts = http_files.http_facts if self.is_http else self.files.info
        try:
            return _shard(address, retried(lambda: facts(address), f"cannot reach {address}"))
        except FileNotFoundError:
            return None

    def blocks(self, address: str, start: int, block: int) -> Iterator[bytes]:
        """The bytes of a remote file from ``start`` on, in blocks; not retried."""
        if self.is_http:
            yield from http_files.http_blocks(address, start, block)
            return
        with self.files.open(address, "rb") as file:
            file.seek(start)
            while data := file.read(block):
                yield data

    def describe_all(self, addresses: Iterable[str]) -> list[Shard | None]:
        """``describe`` for several files at once."""
        with ThreadPoolExecutor(PROBES, thread_name_prefix="fastreg-probe") as threads:
            return list(threads.map(self.describe, addresses))


def _shard(address: str, facts: dict[str, Any]) -> Shard:
    size = facts.get("size")
    token = "|".join(str(facts[key]) for key in _TOKENS if facts.get(key) is not None)
    return Shard(address, -1 if size is None else int(size), token)


def local_shard(path: str | Path) -> Shard:
    """A local file. Raises OSError if it cannot be read."""
    facts = os.stat(path)
    return Shard(str(path), facts.st_size, str(facts.st_mtime_ns))


def matching_files(pattern: str) -> list[Shard]:
    """The files that a path, address or pattern stands for, sorted by address.

    Args:
        pattern: May contain braces (see ``expand_braces``) and, in its last component, ``*``, ``?`` and ``[]``.

    Returns:
        The files; none if a pattern matches nothing.

    Raises:
        InputError: A name that braces stand for is missing.
        RunError: A remote file system does not answer.
    """
    names = expand_braces(pattern)
    plain = [name for name in names if not is_pattern(name)]
    wild = [name for name in names if is_pattern(name)]
    found: list[Shard | None] = []
    if is_address(pattern):
        remote = RemoteFiles(pattern)
        found += remote.describe_all(plain)
        for name in wild:
            folder, _, last = name.rpartition("/")
            files = [shard for _, is_folder, shard in remote.entries(folder) if not is_folder]
            found += remote.describe_all(shard.path for shard in files if fnmatch.fnmatchcase(shard.name, last))
    else:
        paths = [*plain, *(path for name in wild for path in glob.glob(name))]
        found += [local_shard(path) if os.path.isfile(path) else None for path in paths]
    _require_all(plain, found, pattern)
    return sorted({shard for shard in found if shard is not None})


def _require_all(names: Sequence[str], found: Sequence[Shard | None], pattern: str) -> None:
    missing = [name for name, shard in zip(names, found) if shard is None]
    if missing and (len(missing) < len(names) or pattern not in names):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}{more} of {pattern!r} does not exist: correct the pattern, or add the file.")
