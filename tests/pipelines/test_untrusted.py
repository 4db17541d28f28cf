"""Hostile .mat, .beton, .npy and JPEG files: one sentence, no crash, bounded memory."""

from __future__ import annotations

import io
import json
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fastreg.errors import InputError
from fastreg.pipelines import open_dataset, verify, write_beton
from fastreg.pipelines.beton import ABOUT, FIELD, HEADER
from fastreg.pipelines.matlab import parse_mat
from fastreg.pipelines.npy import open_npy


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind: int, shape: list[int], *content: bytes) -> bytes:
    header = (
        element(6, struct.pack("<II", kind, 0)),
        element(5, struct.pack(f"<{len(shape)}i", *shape)),
        element(1, b"x"),
    )
    return element(14, b"".join([*header, *content]))


def mat(*elements: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(elements)


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
    "an element that is cut short": (mat(packed(bytes(1000))[:-4]), "cut short"),
    "text beyond Unicode": (mat(matrix(4, [1], element(13, struct.pack("<Q", 2**40)))), "whole MATLAB 5 file"),
}


@pytest.mark.parametrize(("content", "message"), MATS.values(), ids=MATS)
def test_hostile_matlab_files_are_refused_within_their_own_memory(content, message):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message) as caught:
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


@pytest.mark.parametrize(("change", "message"), BETONS.values(), ids=BETONS)
def test_hostile_beton_files_are_refused(beton, tmp_path, change, message):
    path = tmp_path / "val.beton"
    path.write_bytes(change(beton.read_bytes()))
    with pytest.raises(InputError, match=message) as caught:
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
    assert np.array_equal(read[:] if read.ndim else read, array)
