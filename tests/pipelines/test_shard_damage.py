"""Damaged and hostile shards: one sentence that names the file, never a crash, a hang or another sample's bytes."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastreg.errors import InputError, RunError
from fastreg.pipelines import make_loader, open_dataset, verify
from fastreg.pipelines.tar_scan import scan_tar
from tests.pipelines.shard_files import add_member, write_parquet, write_shards


@pytest.fixture(scope="module")
def folder(data):
    source = open_dataset("imagenet", "val", data / "imagenet")
    return source


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A ustar header with that size field and a true checksum."""
    head = bytearray(512)
    head[: len(name)] = name.encode()
    head[100:108], head[124:136], head[156:157], head[257:265] = (
        b"0000644\0",
        size.ljust(12, b"\0"),
        kind,
        b"ustar\x0000",
    )
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def shard_of(*members: bytes) -> bytes:
    return b"".join(member + bytes(-len(member) % 512) for member in members)


SIZES = {
    "negative": b"\xff" * 12,
    "beyond the file": b"\x80" + (1 << 40).to_bytes(11, "big"),
    "a thousand blocks beyond": b"%011o" % 512_000,
    "not a number": b"12x4",
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_member_of_an_impossible_size_is_named(tmp_path, size):
    good = header("a.cls", b"%011o" % 1), b"0", header("a.jpg", b"%011o" % 4), b"jpeg"
    (tmp_path / "val-0.tar").write_bytes(shard_of(*good, header("b.jpg", size), b"x", bytes(1024)))
    with pytest.raises(InputError, match=r"cannot read .*val-0\.tar: .*; replace it\.$") as caught:
        open_dataset("folder", "val", tmp_path)
    assert "\n" not in str(caught.value)


def pax(record: bytes) -> tuple[bytes, bytes]:
    return header("pax", b"%011o" % len(record), b"x"), record


@pytest.mark.parametrize(
    "record",
    [b"13 size=-100\n", b"99999999999999 path=x\n", b"5 path=x\n", b"path=x\n", b"30 size=99999999999999999999\n"],
)
def test_a_damaged_extended_header_is_named(tmp_path, record):
    content = shard_of(*pax(record), header("a.jpg", b"%011o" % 4), b"jpeg", bytes(1024))
    (tmp_path / "val-0.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*val-0\.tar: "):
        open_dataset("folder", "val", tmp_path)


def test_an_extended_header_of_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "val-0.tar"
    with open(path, "wb") as file:
        file.write(header("pax", b"%011o" % (1 << 30), b"x"))
        file.truncate(2 << 30)
    with pytest.raises(InputError, match=r"an extended header after its start claims 1,073,741,824 bytes"):
        open_dataset("folder", "val", tmp_path)


def test_sparse_and_compressed_shards_are_refused(folder, tmp_path):
    (tmp_path / "val.tar").write_bytes(shard_of(header("a.jpg", b"%011o" % 4, b"S"), b"jpeg", bytes(1024)))
    with pytest.raises(InputError, match=r"member 'a\.jpg' is sparse"):
        open_dataset("folder", "val", tmp_path)
    (path,) = write_shards(folder, tmp_path / "b", shards=1)
    packed = gzip.compress(path.read_bytes()[:20_000])
    path.write_bytes(packed)
    with pytest.raises(InputError, match=r"val-0000\.tar: it is compressed; decompress it"):
        open_dataset("folder", "val", tmp_path / "b")
    path.rename(path.with_suffix(".tar.gz"))
    with pytest.raises(InputError, match=r"val-0000\.tar\.gz is compressed, .*: decompress it"):
        open_dataset("folder", "val", tmp_path / "b")


@pytest.mark.parametrize("where", [0.3, 0.8, -512, -1024])
def test_a_shard_that_is_cut_short_is_named(folder, tmp_path, where):
    paths = write_shards(folder, tmp_path)
    with tarfile.open(paths[1]) as tar:
        end = tar.getmembers()[-1].offset_data + tar.getmembers()[-1].size
        end += -end % 512
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[: int(len(content) * where) if where > 0 else end + 512 + where])
    with pytest.raises(InputError, match=r"cannot read .*val-0001\.tar: .*; replace it"):
        open_dataset("imagenet", "val", tmp_path)


LABELS = {
    "two of one key": ([("cls", b"1"), ("cls", b"2")], "sample 's' has two members 'cls'"),
    "negative": ([("cls", b"-3")], "has label -3 at sample 0"),
    "2^62": ([("cls", b"%d" % 2**62)], f"has label {2**62} at sample 0"),
    "beyond an int64": ([("cls", b"9" * 29)], "has label 9999.* at sample 0"),
    "broken json": ([("json", b"{")], "the JSON of sample 's' is damaged"),
    "deep json": ([("json", b"[" * 100_000)], "the JSON of sample 's' is damaged"),
    "json of a list": ([("json", b"[1]")], "sample 's' has no label cls but json, jpg"),
    "float": ([("json", b'{"label": 1.5}')], "the label of sample 's' is 1.5, neither"),
    "huge": ([("cls", b"1" * (2 << 20))], "the label of sample 's' has 2,097,152 bytes"),
    "none": ([], "sample 's' has no label cls but jpg"),
}


@pytest.mark.parametrize(("members", "message"), LABELS.values(), ids=LABELS)
def test_wrong_labels_name_shard_and_sample(folder, tmp_path, members, message):
    with tarfile.open(tmp_path / "val-7.tar", "w") as tar:
        for key, body in members:
            add_member(tar, f"s.{key}", body)
        add_member(tar, "s.jpg", folder.read(0))
    with pytest.raises(InputError, match=message) as caught:
        open_dataset("folder", "val", tmp_path)
    assert "val-7.tar" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_and_names_are_not_mixed_and_listed_names_hold(folder, tmp_path):
    def write(*labels):
        with tarfile.open(tmp_path / "val.tar", "w") as tar:
            for k, label in enumerate(labels):
                add_member(tar, f"{k}.cls", label)
                add_member(tar, f"{k}.jpg", folder.read(0))

    write(b"1", b"cat")
    with pytest.raises(InputError, match="partly numbers, partly names"):
        open_dataset("folder", "val", tmp_path)
    write(b"dog", b"cat")
    assert open_dataset("folder", "val", tmp_path).classes == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert open_dataset("folder", "val", tmp_path).labels.tolist() == [0, 1]
    write(b"dog", b"eel")
    with pytest.raises(InputError, match=r"val\.tar has label 'eel', which classes\.txt does not list"):
        open_dataset("folder", "val", tmp_path)


def table(labels, images=(b"x", b"y"), kind=None, features=None):
    metadata = {"huggingface": json.dumps({"info": {"features": features or {}}})}
    columns = {"image": pa.array(list(images), pa.binary()), "label": pa.array(labels, kind)}
    return pa.table(columns).replace_schema_metadata(metadata)


TABLES = {
    "test labels": (table([-1, -1]), "has label -1 at sample 0"),
    "2^62": (table([0, 2**62]), f"has label {2**62} at sample 1"),
    "null": (table([0, None]), "row 1 has no label in column 'label'"),
    "float": (table([0.5, 1.0]), "column 'label' is double, neither"),
    "list": (table([[1], [2]]), "column 'label' is list<"),
    "names": (
        table([0, 2], features={"label": {"_type": "ClassLabel", "names": ["a", "b"]}}),
        "has label 2 at sample 1, and labels are 0 to 1",
    ),
}


@pytest.mark.parametrize(("content", "message"), TABLES.values(), ids=TABLES)
def test_wrong_labels_of_parquet_files_name_file_and_row(tmp_path, content, message):
    pq.write_table(content, tmp_path / "val-3.parquet")
    with pytest.raises(InputError, match=message) as caught:
        open_dataset("folder", "val", tmp_path)
    assert "val-3.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": {"features": [1]}}', b"[" * 100_000, b"\xff"])
def test_damaged_metadata_are_ignored(tmp_path, metadata):
    pq.write_table(table([0, 1]).replace_schema_metadata({b"huggingface": metadata}), tmp_path / "val.parquet")
    assert open_dataset("folder", "val", tmp_path).labels.tolist() == [0, 1]


def test_an_image_without_bytes_is_a_bad_image(folder, tmp_path):
    pq.write_table(table([0, 0, 0], [folder.read(0), None, b""]), tmp_path / "val.parquet")
    source = open_dataset("folder", "val", tmp_path)
    with (
        make_loader(source, train=False, batch_size=3, size=32) as loader,
        pytest.raises(RunError, match="row 1 of row"),
    ):
        list(loader.batches())
    assert [where.rpartition(", ")[2] for where, _ in verify("folder", tmp_path)["broken"]] == [
        "row 1 of row group 0",
        "row 2 of row group 0",
    ]


def spoil(rng: np.random.Generator, content: bytes) -> bytes:
    """Some bytes overwritten, a bit flipped, a range removed, or the end cut off."""
    data, n = bytearray(content), len(content)
    at, some = int(rng.integers(0, n)), int(rng.integers(1, 64))
    match rng.integers(4):
        case 0:
            data[at : at + some] = rng.integers(0, 256, min(some, n - at), np.uint8).tobytes()
        case 1:
            data[at] ^= 1 << int(rng.integers(8))
        case 2:
            del data[at : at + some]
        case 3:
            del data[at:]
    return bytes(data)


def test_no_damage_to_a_tar_makes_a_member_leave_the_file(folder, tmp_path):
    """Two thousand damaged archives: refused, or every member is within the file."""
    (path,) = write_shards(folder, tmp_path, shards=1)
    with open(path, "rb") as file:
        whole = scan_tar(file.fileno(), 0, path.stat().st_size)
    small = tmp_path / "small.tar"
    with tarfile.open(small, "w") as tar:
        for member in whole[:6]:
            add_member(tar, "very/long/" * 12 + member.name, b"x" * (member.size % 700))
    content, rng, refused = small.read_bytes(), np.random.default_rng(7), []
    content = content[: content.rindex(b"x") + 2048]
    target = tmp_path / "target.tar"
    for _ in range(2_000):
        damaged = spoil(rng, content)
        target.write_bytes(damaged)
        descriptor = os.open(target, os.O_RDONLY)
        try:
            for member in scan_tar(descriptor, 0, len(damaged)):
                assert 0 <= member.offset <= member.offset + member.size <= len(damaged)
        except ValueError as error:
            refused.append(str(error))
        finally:
            os.close(descriptor)
    assert 200 < len(refused) < 2_000
    assert all(refused)


@pytest.mark.parametrize("write", [write_shards, write_parquet])
def test_damaged_shards_are_refused_or_read_never_anything_else(folder, tmp_path, write):
    """A shard with some bytes changed opens, or is named in one sentence; its samples are bytes, or bad images."""
    paths = write(folder, tmp_path, 1)
    whole, rng, opened, messages = paths[0].read_bytes(), np.random.default_rng(11), 0, []
    ends = whole[:3000], whole[-3000:]  # the headers and the footer
    for k in range(120):
        spoiled = spoil(rng, ends[k % 2])
        paths[0].write_bytes(spoiled + whole[3000:] if k % 2 == 0 else whole[:-3000] + spoiled)
        try:
            source = open_dataset("imagenet", "val", tmp_path)
        except InputError as error:
            messages.append(str(error))
            continue
        opened += 1
        for index in (0, len(source) - 1):
            try:
                assert isinstance(source.read(index), bytes)
            except (OSError, ValueError) as error:
                messages.append(f"{paths[0].name}: {error}")
    assert opened < 120
    assert all(paths[0].name in sentence and "\n" not in sentence for sentence in messages)


def test_a_shard_that_shrinks_after_it_was_indexed_is_a_bad_image(folder, tmp_path):
    paths = write_shards(folder, tmp_path)
    source = open_dataset("imagenet", "val", tmp_path)
    Path(paths[2]).write_bytes(paths[2].read_bytes()[:2000])
    with (
        make_loader(source, train=False, batch_size=40, size=32) as loader,
        pytest.raises(RunError, match=r"val-0002\.tar.* ends after"),
    ):
        list(loader.batches())
