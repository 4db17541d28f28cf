"""Hostile and damaged files of every reader but the shards': one sentence, no crash, bounded memory."""

from __future__ import annotations

import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from fastreg.errors import InputError
from fastreg.pipelines import open_dataset, verify, write_beton
from fastreg.pipelines.beton import ABOUT, FIELD, HEADER, SAMPLE
from fastreg.pipelines.cifar_pickle import load_pickle
from fastreg.pipelines.image import ERRORS, header, pixels
from fastreg.pipelines.matlab import parse_mat
from fastreg.pipelines.npy import open_npy
from tests.support import environment


def opcode(text: str) -> bytes:
    """``module name`` as a GLOBAL."""
    return b"c" + text.replace(" ", "\n").encode() + b"\n"


def tup(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


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
STATE = tup(number(3), text("|"), b"N", b"N", b"N", number(-1), number(-1), number(63)) + b"b"
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


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind: int, shape: list[int], *content: bytes) -> bytes:
    parts = (
        element(6, struct.pack("<II", kind, 0)),
        element(5, struct.pack(f"<{len(shape)}i", *shape)),
        element(1, b"x"),
    )
    return element(14, b"".join([*parts, *content]))


def mat(*parts: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(parts)


def packed(data: bytes) -> bytes:
    content = zlib.compress(data, 9)
    return struct.pack("<II", 15, len(content)) + content


def nest(levels: int) -> bytes:
    inside = matrix(6, [1, 1], element(9, bytes(8)))
    for _ in range(levels):
        inside = matrix(1, [1, 1], inside)
    return inside


MATS = {
    "a bomb": (mat(packed(bytes(200 << 20))), "unpacks to more than 67,108,864"),
    "cells beyond the bytes": (mat(matrix(1, [1 << 30, 1 << 30])), "cells are claimed in"),
    "structs without fields": (
        mat(matrix(2, [1 << 30, 1 << 30], element(5, struct.pack("<i", 32)), element(1, b""))),
        "cells are claimed in",
    ),
    "names of no bytes": (
        mat(matrix(2, [1], element(5, struct.pack("<i", 0)), element(1, b"abc"))),
        "names have 0 bytes",
    ),
    "negative shape": (mat(matrix(6, [-1, 4], element(9, bytes(32)))), r"shape \[-1, 4\]"),
    "fewer numbers than the shape": (mat(matrix(6, [1 << 20, 4], element(9, bytes(32)))), "4,194,304 numbers has 4"),
    "deep cells": (mat(nest(5000)), "more than 16 deep"),
    "an unknown type": (mat(matrix(6, [1], element(99, bytes(8)))), "99"),
    "a part that is cut short": (mat(packed(bytes(1000))[:-4]), "cut short"),
    "text beyond Unicode": (mat(matrix(4, [1], element(13, struct.pack("<Q", 2**40)))), "whole MATLAB 5 file"),
}


@pytest.mark.parametrize(("content", "said"), MATS.values(), ids=MATS)
def test_hostile_matlab_files_are_refused_within_their_own_memory(content, said):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=said) as caught:
        parse_mat(content, "x.mat")
    assert "x.mat" in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10  # KiB; the bomb's room is 64 MiB


@pytest.fixture(scope="module")
def beton(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("beton") / "val.beton"
    write_beton("imagenet", data / "imagenet", path, raw=16)
    return path


FIRST = HEADER.itemsize + 2 * FIELD.itemsize  # where the rows begin


def changed(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def without_note(content: bytes) -> bytes:
    return changed(content, HEADER.itemsize + FIELD.itemsize + 17, bytes(ABOUT.itemsize))


def table(content: bytes) -> int:
    return int(np.frombuffer(content, HEADER, 1)["allocation"][0])


BETONS = {
    "a label of 2^62": (lambda c: changed(without_note(c), FIRST + 16, struct.pack("<q", 2**62)), f"label {2**62}"),
    "a negative label": (lambda c: changed(c, FIRST + 16, struct.pack("<q", -5)), "has label -5"),
    "2^63 samples": (lambda c: changed(c, 8, struct.pack("<Q", 2**63)), "cut short or damaged"),
    "no page size": (lambda c: changed(c, 4, bytes(4)), "cut short or damaged"),
    "a pointer that is negative as int64": (
        lambda c: changed(
            changed(c, FIRST + 5, struct.pack("<Q", 2**64 - 768)), table(c) + 8, struct.pack("<Q", 2**64 - 768)
        ),
        "cut short or damaged",
    ),
    "a size of 2^63": (lambda c: changed(c, table(c) + 16, struct.pack("<Q", 2**63)), "cut short or damaged"),
    "a note beyond the file": (
        lambda c: changed(c, HEADER.itemsize + FIELD.itemsize + 17 + 8, struct.pack("<QQ", 2**63, 2**63)),
        "cut short or damaged",
    ),
}


@pytest.mark.parametrize(("change", "said"), BETONS.values(), ids=BETONS)
def test_hostile_beton_files_are_refused(beton, tmp_path, change, said):
    path = tmp_path / "val.beton"
    path.write_bytes(change(beton.read_bytes()))
    with pytest.raises(InputError, match=said) as caught:
        open_dataset("folder", "val", path)
    assert "val.beton" in str(caught.value)


@pytest.mark.parametrize("note", [[], 5, "x", {"classes": "ab"}, {"classes": [1]}, {"classes": {"a": 1}}])
def test_a_note_of_another_form_is_damage(beton, tmp_path, note):
    content = beton.read_bytes()
    at = HEADER.itemsize + FIELD.itemsize + 17
    about = np.frombuffer(content, ABOUT, 1, at)[0]
    body = json.dumps(note).encode().ljust(int(about["size"]))
    (tmp_path / "val.beton").write_bytes(changed(content, int(about["pointer"]), body))
    with pytest.raises(InputError, match="cut short or damaged"):
        open_dataset("folder", "val", tmp_path)


def claiming(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


@pytest.mark.parametrize("side", [9_500, 13_300, 20_000, 65_535])
def test_a_few_bytes_that_claim_a_huge_image_are_a_bad_image(tmp_path, side):
    (tmp_path / "val" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a" / "bomb.jpg").write_bytes(claiming(side))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ((where, why),) = verify("folder", tmp_path)["broken"]
    assert where.endswith("bomb.jpg")
    assert "decompression bomb" in why
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def npy(about: str, body: bytes = bytes(96)) -> bytes:
    head = about.encode("latin1") + b" " * (-(len(about) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


@pytest.mark.parametrize(
    "about",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (12,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-96,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (97,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1e2,), }",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (12,), }",
        "{'descr': '|V8', 'fortran_order': False, 'shape': (12,), }",
        "{'descr': '|u1', 'shape': (96,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (96,",
        "(" * 3000,
        "9" * 5000,
    ],
)
def test_a_hostile_npy_header_is_one_sentence(tmp_path, about):
    (tmp_path / "x.npy").write_bytes(npy(about))
    with pytest.raises(InputError, match=r"x\.npy cannot be read as an array \(.*\): extract it again") as caught:
        open_npy(tmp_path / "x.npy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i8", "f4", "?"])
@pytest.mark.parametrize("shape", [(3, 4), (0, 5), (), (7,)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_honest_npy_files_are_numpys(tmp_path, dtype, shape, order):
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape), dtype, order=order)
    np.save(tmp_path / "x.npy", array)
    read = open_npy(tmp_path / "x.npy")
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)


def spoil(rng: np.random.Generator, content: bytes, among: int | None = None) -> bytes:
    """A byte set, a bit turned, some bytes left out or the end cut off, within the first ``among`` bytes."""
    data = bytearray(content)
    at = int(rng.integers(0, min(among or len(data), len(data))))
    match rng.integers(4):
        case 0:
            data[at] = int(rng.integers(256))
        case 1:
            data[at] ^= 1 << int(rng.integers(8))
        case 2:
            del data[at : at + int(rng.integers(1, 16))]
        case 3:
            del data[at:]
    return bytes(data)


def test_fuzz_pickles(tmp_path):
    cifar(tmp_path)
    path = tmp_path / "cifar-100-python" / "train"
    for protocol in (2, 5):
        whole = pickle.dumps({"data": np.arange(24, dtype=np.uint8), "fine_labels": [0, 1], "f": [b"x"] * 3}, protocol)
        rng, refused = np.random.default_rng(1), []
        for _ in range(800):
            path.write_bytes(spoil(rng, whole))
            try:
                content = load_pickle(path)
            except InputError as error:
                refused.append(str(error))
            else:
                arrays = [value for value in content.values() if isinstance(value, np.ndarray)]
                assert all(array.dtype.kind in "biu" for array in arrays)
        assert len(refused) > 160
        assert all("train" in sentence and "\n" not in sentence for sentence in refused)


def test_fuzz_matlab_files():
    buffer = io.BytesIO()
    rows = np.array([(1, "n01", 2.5)], dtype=[("id", "O"), ("wnid", "O"), ("x", "O")])
    scipy.io.savemat(buffer, {"synsets": rows, "few": np.array(["a", 3], dtype=object), "y": np.arange(9)})
    rng, refused = np.random.default_rng(2), []
    for _ in range(3000):
        try:
            parse_mat(spoil(rng, buffer.getvalue()), "x.mat")
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 500
    assert all("x.mat" in sentence for sentence in refused)


def test_fuzz_beton_tables(beton, tmp_path):
    content, path = beton.read_bytes(), tmp_path / "val.beton"
    rng, refused, opened = np.random.default_rng(3), [], 0
    for k in range(300):
        if k % 2:  # the header, the fields and the rows; sometimes the tables at the end
            path.write_bytes(spoil(rng, content, FIRST + 120 * SAMPLE.itemsize))
        else:
            end = table(content) - 4000
            path.write_bytes(content[:end] + spoil(rng, content[end:]))
        try:
            source = open_dataset("folder", "val", path)
        except InputError as error:
            refused.append(str(error))
            continue
        opened += 1
        for index in (0, len(source) - 1):
            try:
                assert len(source.read(index)) > 0
            except (OSError, ValueError) as error:
                refused.append(f"{path.name} {error}")
    assert opened > 10
    assert len(refused) > 50
    assert all("val.beton" in sentence for sentence in refused)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"])
def test_fuzz_images(form):
    rng, refused = np.random.default_rng(4), 0
    image = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).resize((60, 40))
    buffer = io.BytesIO()
    image.save(buffer, form)
    for _ in range(400):
        data = spoil(rng, buffer.getvalue())
        try:
            array = pixels(data, header(data).plain)
        except ERRORS:
            refused += 1
        else:
            assert array.dtype == np.uint8
            assert array.ndim == 3
    assert refused > 10


def test_fuzz_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    whole, rng, refused = (tmp_path / "x.npy").read_bytes(), np.random.default_rng(5), 0
    for _ in range(1000):
        (tmp_path / "x.npy").write_bytes(spoil(rng, whole, 130))
        try:
            array = open_npy(tmp_path / "x.npy")
            assert array.dtype.kind in "biuf"
        except InputError:
            refused += 1
    assert refused > 500
