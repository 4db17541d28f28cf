"""MATLAB 5 files as data sets use them: numbers, text, cells and structs (no sparse arrays, no objects)."""

from __future__ import annotations

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


def load_mat(path: Path) -> dict[str, Any]:
    """``parse_mat`` of a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    return parse_mat(data, path)


def parse_mat(data: bytes, where: str | Path) -> dict[str, Any]:
    """The variables of a MATLAB 5 file: arrays in MATLAB's shape, text as str, structs as a list of dicts.

    Raises InputError naming ``where`` for anything else.
    """
    try:
        if data[:10] != b"MATLAB 5.0" or data[126:128] != b"IM":
            raise ValueError("its header is not one")
        variables, at = {}, 128
        while at < len(data):
            kind, content, at = _element(data, at)
            if kind == _COMPRESSED:
                kind, content, _ = _element(zlib.decompress(content), 0)
            if kind == _MATRIX:
                name, value = _matrix(content)
                variables[name] = value
        return variables
    except (ValueError, IndexError, KeyError, zlib.error) as error:
        raise InputError(f"{where} is not a whole MATLAB 5 file ({error}): fetch it anew.") from None


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """(type, content, offset of the next element); elements of up to four bytes share their tag's eight."""
    kind, size = np.frombuffer(data, "<u4", 2, at).tolist()
    if kind >> 16:
        return kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)], at + 8
    if at + 8 + size > len(data):
        raise ValueError("it is cut short")
    return kind, data[at + 8 : at + 8 + size], at + 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)


def _numbers(data: bytes, at: int) -> tuple[np.ndarray, int]:
    kind, content, at = _element(data, at)
    return np.frombuffer(content, "<" + _NUMBERS[kind]), at


def _matrix(data: bytes) -> tuple[str, Any]:
    if not data:
        return "", np.zeros((0, 0))
    flags, at = _numbers(data, 0)
    shape, at = _numbers(data, at)
    name, at = _numbers(data, at)
    kind, count = int(flags[0]) & 0xFF, int(np.prod(shape))
    text = name.tobytes().decode("latin1")
    if kind in (_CELL, _STRUCT):
        fields = [""]
        if kind == _STRUCT:
            width, at = _numbers(data, at)
            names, at = _numbers(data, at)
            raw = names.tobytes()
            step = int(width[0])
            fields = [raw[i : i + step].split(b"\0")[0].decode("latin1") for i in range(0, len(raw), step)]
        rows: list[dict[str, Any]] = []
        for _ in range(count):
            row = {}
            for field in fields:
                _, content, at = _element(data, at)
                row[field] = _matrix(content)[1]
            rows.append(row)
        return text, rows if kind == _STRUCT else [row[""] for row in rows]
    values, at = _numbers(data, at)
    if kind == _CHAR:
        return text, "".join(map(chr, values.tolist()))
    return text, values.reshape(shape.tolist(), order="F")
