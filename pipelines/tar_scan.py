"""The members of a tar file, read from its headers alone; every size and offset is checked against the file."""

from __future__ import annotations

import os
from typing import NamedTuple

BLOCK = 512
MAX_EXTENSION = 1 << 20  # bytes of an extended header or long name
_NO_DATA = b"123456"  # links, devices, folders
_REGULAR = b"07\0"


class Member(NamedTuple):
    """A regular file of a tar: its name, and the offset and size of its bytes in the outer file."""

    name: str
    offset: int
    size: int


def scan_tar(descriptor: int, start: int, end: int) -> list[Member]:
    """The regular files of the tar between two offsets of an open file, in order.

    Args:
        descriptor: File descriptor, read with ``os.pread``.
        start: Offset of the first header.
        end: Offset behind the tar.

    Returns:
        The members; their offsets count from the beginning of the file. ustar, GNU and pax headers are understood.

    Raises:
        ValueError: The tar is compressed, cut short or damaged, or a member's size is negative or beyond the end.
    """
    found: list[Member] = []
    extended: dict[str, str] = {}
    at, long_name, last = start, "", "its start"
    while True:
        head = os.pread(descriptor, BLOCK, at)
        if at + BLOCK > end or len(head) < BLOCK:
            raise ValueError(f"it is cut short after {last}")
        if head == bytes(BLOCK):
            return found
        if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:4] == b"\x28\xb5\x2f\xfd":
            raise ValueError("it is compressed; decompress it")
        if not _is_header(head):
            raise ValueError(f"it has no valid header after {last}")
        kind = head[156:157]
        name = long_name or extended.get("path") or _name(head)
        size = int(extended["size"]) if "size" in extended else _number(head[124:136])
        data = 0 if kind in _NO_DATA else size
        if size < 0 or at + BLOCK + data > end:
            there = max(0, end - at - BLOCK)
            raise ValueError(f"member {name!r} claims {size:,} bytes, of which the file has {there:,}")
        if kind in b"xgLK":
            if size > MAX_EXTENSION:
                raise ValueError(f"an extended header after {last} claims {size:,} bytes")
            content = os.pread(descriptor, size, at + BLOCK)
            if kind == b"x":
                extended = _records(content)
            elif kind == b"L":
                long_name = _text(content)
        else:
            if kind == b"S" or any(key.startswith("GNU.sparse") for key in extended):
                raise ValueError(f"member {name!r} is sparse, which is not supported")
            if kind in _REGULAR and not name.endswith("/"):
                found.append(Member(name, at + BLOCK, size))
            long_name, extended, last = "", {}, name
        at += BLOCK + -(-data // BLOCK) * BLOCK


def member_name(descriptor: int, offset: int) -> str:
    """The name in the header before a member's bytes; a name beyond 255 bytes is shortened."""
    return _name(os.pread(descriptor, BLOCK, offset - BLOCK))


def _is_header(head: bytes) -> bool:
    """Whether a block's checksum is right: the sum of its bytes, unsigned, or signed as some old programs write it."""
    stated = _number(head[148:156])
    total = sum(head) - sum(head[148:156]) + 8 * 32
    return stated == total or stated == total - 256 * sum(byte > 127 for byte in head[:148] + head[156:])


def _number(field: bytes) -> int:
    """Octal text, or GNU's big-endian number behind a set first bit."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else int.from_bytes(field[1:], "big")
    text = field.strip(b" \0").split(b"\0")[0]
    if text.strip(b"01234567"):
        raise ValueError(f"a header holds {text!r} in place of a number")
    return int(text or b"0", 8)


def _name(head: bytes) -> str:
    prefix = _text(head[345:500]) if head[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(head[:100])}" if prefix else _text(head[:100])


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _records(content: bytes) -> dict[str, str]:
    """The records of a pax header: "length key=value\\n" each."""
    found, at, content = {}, 0, content.rstrip(b"\0")
    while at < len(content):
        length = content[at : at + 9].partition(b" ")[0]
        count = int(length) if length.isdigit() and len(length) < 8 else 0
        if not len(length) + 1 < count <= len(content) - at:
            raise ValueError("an extended header is damaged")
        key, _, value = content[at + len(length) + 1 : at + count].rstrip(b"\n").partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        at += count
    if "size" in found and not found["size"].isdecimal():
        raise ValueError(f"an extended header holds {found['size']!r} in place of a size")
    return found
