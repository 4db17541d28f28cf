"""``.npy`` files that may be damaged or hostile: numbers only, and a header that must fit the file."""

from __future__ import annotations

import ast
import math
import os
import re
from pathlib import Path

import numpy as np

from fastreg.errors import InputError, RunError

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000  # bytes, numpy's own limit
_NUMBER = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")  # bool, integers, floats


class StoredRows:
    """The rows of a ``.npy`` file in C order, read when they are sliced.

    A memory map would end the process with SIGBUS if the file became shorter.

    Attributes:
        dtype, shape, ndim: As of an array.
    """

    def __init__(self, path: str | Path, dtype: np.dtype, shape: tuple[int, ...], offset: int):
        self.path, self.dtype, self.shape, self.ndim, self._offset = path, dtype, shape, len(shape), offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, stop, step = rows.indices(len(self))
        if step != 1:
            return np.concatenate([self[:0], *(self[row : row + 1] for row in range(first, stop, step))])
        each = math.prod(self.shape[1:])
        count, offset = max(0, stop - first) * each, self._offset + first * each * self.dtype.itemsize
        found = np.fromfile(self.path, self.dtype, count, offset=offset)
        if len(found) < count:
            raise RunError(f"{self.path} was cut to {os.path.getsize(self.path):,} bytes while in use: restore it.")
        return found.reshape(-1, *self.shape[1:])


def open_npy(path: str | Path) -> np.ndarray | StoredRows:
    """Open a ``.npy`` file.

    Args:
        path: The file. Arrays of numbers are read, of any shape; object arrays are not.

    Returns:
        The rows, which are read when they are sliced; a number, an empty array or one in Fortran order as an array.

    Raises:
        InputError: The file is missing, or not such an array; the message names it.
    """
    try:
        with open(path, "rb") as file:
            dtype, fortran, shape, offset = _header(file.read(12 + MAX_HEADER))
            size = file.seek(0, 2) - offset
        if math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"its header describes {math.prod(shape) * dtype.itemsize:,} bytes and {size:,} follow")
        if size == 0:
            return np.empty(shape, dtype)
        if shape and not fortran:
            return StoredRows(path, dtype, shape, offset)
        return np.fromfile(path, dtype, offset=offset).reshape(shape, order="F")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read as an array ({why}): extract it again.") from None


def _header(start: bytes) -> tuple[np.dtype, bool, tuple[int, ...], int]:
    """(dtype, whether the order is Fortran's, shape, offset of the data) from the beginning of a file."""
    if len(start) < 12 or start[:6] != MAGIC or start[6] not in (1, 2, 3):
        raise ValueError("it does not begin as a .npy file")
    first = 10 if start[6] == 1 else 12
    length = int.from_bytes(start[8:first], "little")
    if length > MAX_HEADER or first + length > len(start):
        raise ValueError("its header is cut short or too long")
    try:
        about = ast.literal_eval(start[first : first + length].decode("latin1").strip())
        descr, fortran, shape = about["descr"], about["fortran_order"], about["shape"]
        dtype = np.dtype(descr) if isinstance(descr, str) and _NUMBER.fullmatch(descr) else None
    except Exception:  # the parser's and numpy's own classes
        raise ValueError("its header is damaged") from None
    if dtype is None:
        raise ValueError(f"its items are {str(descr)[:40]!r}, not numbers")
    sound = isinstance(shape, tuple) and all(type(side) is int and 0 <= side < 1 << 62 for side in shape)
    if not sound or type(fortran) is not bool or len(shape) > 32:
        raise ValueError(f"its shape {str(shape)[:60]} is impossible")
    return dtype, fortran, shape, first + length
