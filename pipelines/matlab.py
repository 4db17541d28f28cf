"""MATLAB 5 files as data sets use them: numbers, text, cells and structs (no sparse arrays, no objects).

Every size in a file is checked before memory is reserved for it, and compressed elements are unpacked up to a limit.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.errors import InputError

_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
    16: "u1",
    17: "u2",
}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
MAX_DEPTH = 16  # of cells and structs inside each other
ROOM, RATIO = 64 << 20, 100  # a compressed element may unpack to ROOM bytes, or to RATIO times its size


def load_mat(path: Path) -> dict[str, Any]:
    """``parse_mat`` of a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    return parse_mat(data, path)


def parse_mat(data: bytes, where: str | Path) -> dict[str, Any]:
    """Read a MATLAB 5 file.

    Args:
        data: The file's content.
        where: Its name, for messages.

    Returns:
        The variables: arrays in MATLAB's shape, text as str, cells as lists, structs as lists of dicts.

    Raises:
        InputError: The file is damaged, or holds something else.
    """
    try:
        if data[:10] != b"MATLAB 5.0" or data[126:128] != b"IM":
            raise ValueError("its header is not one")
        variables, at, whole = {}, 128, memoryview(data)
        while at < len(whole):
            kind, content, at = _element(whole, at)
            if kind == _COMPRESSED:
                kind, content, _ = _element(_unpacked(content), 0)
            if kind == _MATRIX:
                name, value = _matrix(content, MAX_DEPTH)
                variables[name] = value
        return variables
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, zlib.error) as error:
        raise InputError(f"{where} is not a whole MATLAB 5 file ({error}): fetch it anew.") from None


def _unpacked(packed: memoryview) -> memoryview:
    room = max(ROOM, RATIO * len(packed))
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, room)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError(
            f"a compressed element of {len(packed):,} bytes unpacks to more than {room:,}"
            if len(content) >= room
            else "it is cut short"
        )
    return memoryview(content)


def _element(data: memoryview, at: int) -> tuple[int, memoryview, int]:
    """(type, content, offset of the next element); elements of up to four bytes share their tag's eight."""
    kind, size = np.frombuffer(data, "<u4", 2, at).tolist()
    if kind >> 16:
        if kind >> 16 > 4:
            raise ValueError("a short element claims more than four bytes")
        return kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)], at + 8
    if at + 8 + size > len(data):
        raise ValueError("it is cut short")
    return kind, data[at + 8 : at + 8 + size], at + 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)


def _numbers(data: memoryview, at: int) -> tuple[np.ndarray, int]:
    kind, content, at = _element(data, at)
    return np.frombuffer(content, "<" + _NUMBERS[kind]), at


def _matrix(data: memoryview, depth: int) -> tuple[str, Any]:
    if not data:
        return "", np.zeros((0, 0))
    if depth == 0:
        raise ValueError(f"its cells are more than {MAX_DEPTH} deep")
    flags, at = _numbers(data, 0)
    sides, at = _numbers(data, at)
    name, at = _numbers(data, at)
    kind, shape = int(flags[0]) & 0xFF, [int(side) for side in sides.tolist()]
    if not shape or len(shape) > 32 or min(shape) < 0:
        raise ValueError(f"an array has the shape {shape[:8]}")
    count = math.prod(shape)
    text = name.tobytes().decode("latin1")
    if kind in (_CELL, _STRUCT):
        fields = [""]
        if kind == _STRUCT:
            width, at = _numbers(data, at)
            names, at = _numbers(data, at)
            raw, step = names.tobytes(), int(width[0])
            if step < 1:
                raise ValueError(f"a struct's field names have {step} bytes")
            fields = [raw[i : i + step].split(b"\0")[0].decode("latin1") for i in range(0, len(raw), step)]
        if 8 * count * max(1, len(fields)) > len(data):  # an element has 8 bytes or more
            raise ValueError(f"{count:,} cells are claimed in {len(data):,} bytes")
        rows: list[dict[str, Any]] = []
        for _ in range(count):
            row = {}
            for field in fields:
                _, content, at = _element(data, at)
                row[field] = _matrix(content, depth - 1)[1]
            rows.append(row)
        return text, rows if kind == _STRUCT else [row[""] for row in rows]
    values, at = _numbers(data, at)
    if kind == _CHAR:
        return text, "".join(map(chr, values.tolist()))
    if len(values) != count:
        raise ValueError(f"an array of {count:,} numbers has {len(values):,}")
    return text, values.reshape(shape, order="F")
