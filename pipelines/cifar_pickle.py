"""CIFAR's pickles, read by an unpickler with only the opcodes of numbers, text, lists, dictionaries and byte arrays.

No function of numpy is called while a pickle is read. Arrays are read as descriptions, which are checked before an
array is made from its bytes: an array of objects over forged bytes would crash the interpreter.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastreg.errors import InputError

MAX_BYTES = 1 << 30  # of a pickle; CIFAR's largest has 155 MB
_ITEMS = {"u1": "u1", "i1": "i1", "i2": "i2", "i4": "i4", "i8": "i8", "b1": "?", "u2": "u2", "u4": "u4", "u8": "u8"}


class _Dtype:
    """The description of a numpy.dtype: its text, such as "u1"."""

    def __init__(self, text: Any, *_: Any):
        self.text = text.decode("latin1") if isinstance(text, bytes) else text
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]


class _Array:
    """The description of a numpy.ndarray: shape, dtype, order and bytes from the pickle."""

    def __init__(self, *_: Any):
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = tuple(state)[-4:]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.state = shape, dtype, order == "F", data
    return array


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


# The names that numpy 1 and 2 and Python 2 and 3 wrote into the pickle of an array
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin1,
}
_Unpickler: Any = pickle._Unpickler  # the Python implementation, whose table of opcodes can be cut


_REFUSED: tuple[bytes, ...] = (
    pickle.INST,
    pickle.OBJ,
    pickle.NEWOBJ,
    pickle.NEWOBJ_EX,
    pickle.EXT1,
    pickle.EXT2,
    pickle.EXT4,
)
_REFUSED += (pickle.PERSID, pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)


class _Reader(_Unpickler):
    """The opcodes of CIFAR's pickles. The C implementation would reserve memory for any memo number that it reads."""

    dispatch: ClassVar[dict] = {
        code: method for code, method in _Unpickler.dispatch.items() if bytes([code]) not in _REFUSED
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def load_build(self) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) not in (_Array, _Dtype):
            raise pickle.UnpicklingError("it sets the state of something that is not an array")
        self.stack[-1].__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not any(function is known for known in _KNOWN.values()) or type(arguments) is not tuple:
            raise pickle.UnpicklingError("it calls something that is not an array's")
        self.stack[-1] = function(*arguments)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if size > MAX_BYTES:
            raise pickle.UnpicklingError(f"it claims {size:,} bytes")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def load_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR pickle.

    Args:
        path: The file.

    Returns:
        Its entries, with keys as text and arrays of numbers as numpy arrays. Other values are unchanged.

    Raises:
        InputError: The file is missing, damaged, or asks for anything but arrays and plain containers.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise pickle.UnpicklingError(f"it has {path.stat().st_size:,} bytes")
        content = _Reader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dictionary")
        return {
            key.decode() if isinstance(key, bytes) else str(key): _made(value) if type(value) is _Array else value
            for key, value in content.items()
        }
    except FileNotFoundError:
        raise InputError(f"{path} is missing: unpack the whole CIFAR archive there.") from None
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} is refused as a CIFAR pickle ({error}): fetch the data set anew.") from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        why = f"{type(error).__name__} {str(error)[:100]}".split("\n")[0].strip()
        raise InputError(f"{path} cannot be read as a CIFAR pickle ({why}): fetch the data set anew.") from None


def _made(array: _Array) -> np.ndarray:
    """The array of a description, if it has numbers and all of their bytes."""
    if len(array.state) != 4:
        raise pickle.UnpicklingError("an array has no content")
    shape, dtype, fortran, data = array.state
    if type(dtype) is not _Dtype or dtype.text not in _ITEMS or dtype.order not in ("<", ">", "|", "="):
        raise pickle.UnpicklingError("an array's items are not whole numbers")
    if type(shape) is not tuple or not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 8:
        raise pickle.UnpicklingError("an array's shape is impossible")
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array's content is not bytes")
    kind = np.dtype((">" if dtype.order == ">" else "<") + _ITEMS[dtype.text])
    if math.prod(shape) * kind.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of {shape} has {len(data):,} bytes")
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
