"""Files over HTTP by the standard library: their size and their bytes, from any offset."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STALL_SECONDS = 30.0  # timeout of a connection that sends no byte


def http_facts(url: str) -> dict[str, Any]:
    """The headers of a file, its length in bytes as ``size``.

    Raises:
        FileNotFoundError: The server has no such file.
        OSError: The server does not answer, or refuses.
    """
    try:
        with _request(url, "HEAD") as answer:
            facts = dict(answer.headers)
            length = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        if error.code not in (403, 405, 501):  # servers that know no HEAD
            raise
        with _request(url, "GET", {"Range": "bytes=0-0"}) as answer:
            facts = dict(answer.headers)
            length = answer.headers.get("Content-Range", "").rpartition("/")[2]
            length = length if answer.status == 206 else answer.headers.get("Content-Length")
    return {**facts, "size": int(length) if length and length.isdecimal() else None}


def http_blocks(url: str, start: int, block: int) -> Iterator[bytes]:
    """The bytes of a file from ``start`` on, in blocks. Raises like ``http_facts``, and if bytes are missing."""
    try:
        with _request(url, "GET", {"Range": f"bytes={start}-"} if start else {}) as answer:
            skip = 0 if answer.status == 206 else start  # the server sends the whole file
            length = answer.headers.get("Content-Length")
            left = int(length) if length and length.isdecimal() else None
            while data := answer.read1(block):  # received bytes, so that a stall loses nothing
                if left is not None:
                    left -= len(data)
                drop = min(skip, len(data))
                skip -= drop
                if drop < len(data):
                    yield data[drop:]
            if left:
                raise ConnectionError(f"the answer stopped {left:,} bytes before its end")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send
            raise


@contextmanager
def _request(url: str, method: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
    request = urllib.request.Request(url, headers={"User-Agent": "fastreg", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=STALL_SECONDS) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise FileNotFoundError(f"{url} does not exist") from None
        raise
