"""CIFAR pickles that would run code, crash the interpreter or fill the memory: each is refused in one sentence."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastreg.errors import InputError
from fastreg.pipelines import open_dataset
from fastreg.pipelines.cifar_pickle import load_pickle
from tests.support import environment


def opcode(text: str) -> bytes:
    """``module name`` as a GLOBAL."""
    return b"c" + text.replace(" ", "\n").encode() + b"\n"


def tup(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def raw(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def pickled(value: bytes) -> bytes:
    return b"\x80\x02}" + raw(b"data") + value + b"s."


OBJECTS = opcode("numpy dtype") + tup(text("O8"), number(0), number(1)) + b"R"
FORGED = b"\x41" * 64
EMPTY = opcode("numpy.core.multiarray _reconstruct") + tup(opcode("numpy ndarray"), tup(number(0)), raw(b"b")) + b"R"
BYTES_DTYPE = opcode("numpy dtype") + tup(text("u1"), number(0), number(1)) + b"R"
HOSTILE = {
    "state of an object array over bytes": EMPTY + tup(number(1), tup(number(8)), OBJECTS, b"\x89", raw(FORGED)) + b"b",
    "frombuffer with dtype O": opcode("numpy.core.numeric _frombuffer")
    + tup(raw(FORGED), OBJECTS, tup(number(8)), text("C"))
    + b"R",
    "ndarray with dtype O": opcode("numpy ndarray") + tup(tup(number(8)), OBJECTS, raw(FORGED)) + b"R",
    "dtype given a state": EMPTY
    + tup(
        number(1),
        tup(number(8)),
        BYTES_DTYPE + tup(number(3), text("|"), b"N", b"N", b"N", number(8), number(8), number(63)) + b"b",
        b"\x89",
        raw(FORGED),
    )
    + b"b",
    "structured dtype": EMPTY
    + tup(
        number(1),
        tup(number(8)),
        opcode("numpy dtype") + tup(text("O,O"), number(0), number(1)) + b"R",
        b"\x89",
        raw(FORGED),
    )
    + b"b",
    "negative shape": EMPTY + tup(number(1), tup(number(-8)), BYTES_DTYPE, b"\x89", raw(FORGED)) + b"b",
    "shape beyond the bytes": EMPTY + tup(number(1), tup(number(1 << 30)), BYTES_DTYPE, b"\x89", raw(FORGED)) + b"b",
    "content that is a list": EMPTY + tup(number(1), tup(number(8)), BYTES_DTYPE, b"\x89", b"]") + b"b",
    "state of a function": opcode("_codecs encode") + b"}" + text("__code__") + number(1) + b"s" + b"b",
    "state of a class": opcode("numpy ndarray") + b"}" + text("x") + number(1) + b"sb",
    "object of a class": opcode("numpy ndarray") + b")\x81",
    "os.system": opcode("os system") + tup(text("touch owned")) + b"R",
    "getattr": opcode("builtins getattr") + tup(opcode("numpy dtype"), text("type")) + b"R",
    "a memo number of 2^31": number(1) + b"r" + struct.pack("<I", 2**31 - 1),
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 1 << 40),
    "a byte array that is not there": b"\x96" + struct.pack("<Q", 1 << 40),
    "a long of 2^31 bytes": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "extension": b"\x82\x01",
    "persistent": b"Pid\n",
}
CHILD = """
import resource, sys
from pathlib import Path
import numpy
from fastreg.errors import InputError
from fastreg.pipelines.cifar_pickle import load_pickle
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    content = load_pickle(Path(sys.argv[1]))
    print("read", type(content["data"]).__name__)
except InputError as error:
    print("refused", error)
"""


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_pickle_is_refused_or_becomes_no_array_of_objects(tmp_path, how):
    """In a child, which a crash of the interpreter would end."""
    path = tmp_path / "test"
    path.write_bytes(pickled(HOSTILE[how]))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    if how == "a memo number of 2^31":  # harmless where the memo is a dictionary
        assert done.stdout == "read int\n"
    else:
        assert done.stdout.startswith(f"refused {path} ")
        assert done.stdout.count("\n") == 1
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("dtype", ["O", "O8", "U4", "V8", "S8", "M8[s]", "m8", "f8", "c16", "u1,u1", "(2,)u1"])
def test_only_whole_numbers_become_arrays(tmp_path, dtype):
    kind = opcode("numpy dtype") + tup(text(dtype), number(0), number(1)) + b"R"
    (tmp_path / "x").write_bytes(pickled(EMPTY + tup(number(1), tup(number(8)), kind, b"\x89", raw(FORGED)) + b"b"))
    with pytest.raises(InputError, match="items are not whole numbers"):
        load_pickle(tmp_path / "x")


def cifar(folder: Path, **content) -> Path:
    """CIFAR-100's three files with one sample, some entries exchanged."""
    base = folder / "cifar-100-python"
    base.mkdir(parents=True, exist_ok=True)
    good = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0, 1]}
    for name in ("train", "test"):
        (base / name).write_bytes(pickle.dumps({**good, **content}, 2))
    (base / "meta").write_bytes(pickle.dumps({"fine_label_names": content.get("fine_label_names", ["a", "b"])}, 2))
    return folder


def test_labels_of_nested_lists_are_not_walked_through(tmp_path):
    nested: list = []
    for _ in range(60):
        nested = [nested, nested]  # 2^60 leaves
    for wrong in (nested, [[0], [1]], ["0", "1"], [0.0, 1.0], [2**70, 0], 5, None, {0: 1}):
        with pytest.raises(InputError, match="lacks matching 'data'"):
            open_dataset("cifar100", "train", cifar(tmp_path, fine_labels=wrong))
    with pytest.raises(InputError, match="lacks the class names"):
        open_dataset("cifar100", "train", cifar(tmp_path, fine_label_names=nested))
    with pytest.raises(InputError, match="has label 2 but 2 classes"):
        open_dataset("cifar100", "train", cifar(tmp_path, fine_labels=[0, 2]))
    assert len(open_dataset("cifar100", "train", cifar(tmp_path))) == 2
