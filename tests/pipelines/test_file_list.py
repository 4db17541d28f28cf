"""The index of class folders: what it lists, when it is believed, and what it costs."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastreg.errors import InputError
from fastreg.kernels import philox
from fastreg.pipelines import file_list, open_dataset
from fastreg.pipelines.file_list import EXTENSIONS, INDEX, FileList, index_paths, open_list, packed, read_index
from fastreg.pipelines.order import Order, OrderAhead
from fastreg.pipelines.source import check_fingerprint, counts_of, same_data


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Three classes with folders below them; an old set, so that it gets an index whatever its size."""
    monkeypatch.setattr(file_list, "SMALL", 3)
    monkeypatch.setenv("FASTREG_CACHE", str(tmp_path / "cache"))
    base = tmp_path / "set" / "train"
    names = "a/9.jpg a/sub/1.png a/sub/deep/0.bmp a/sub-2/0.webp a/B.PPM b/x.jpeg b/y.gif b/.hidden.jpg c/only/é.tif"
    for name in names.split():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(name.encode())
    (base / "c" / "empty").mkdir()
    for path, _, _ in os.walk(base):
        os.utime(path, (1e9, 1e9))
    return base


def paths(files: FileList) -> list[str]:
    return [files.path(k) for k in range(len(files))]


EXPECTED = ["a/9.jpg", "a/B.PPM", "a/sub/1.png", "a/sub/deep/0.bmp", "a/sub-2/0.webp", "b/x.jpeg", "c/only/é.tif"]


def test_the_list_and_its_index_are_equal(folder):
    listed = open_list(folder)
    expected = sorted(EXPECTED, key=lambda name: (name.split("/")[0], name.rpartition("/")[::2]))
    assert paths(listed) == expected
    assert listed.image_labels().tolist() == [0, 0, 0, 0, 0, 1, 2]
    kept = read_index(folder / INDEX)
    assert kept is not None
    for one, other in zip(listed, kept, strict=True):
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
    rows = [[(p.split("/", 1)[1], 5) for p in expected if p[0] == c] for c in "abc"]
    assert counts_of("abc", rows).split(", ")[-1 if len(expected) > 3 else -2] != ""
    assert f"names {listed.digest[:12]}" in counts_of("abc", rows)


@pytest.mark.parametrize("counted", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("seed", range(6))
def test_a_list_is_that_of_a_walk(tmp_path, monkeypatch, seed, counted):
    """Random trees, on file systems that count the folders in a folder and on those that give 1 link."""
    if not counted:
        stat = os.stat
        monkeypatch.setattr(
            os, "stat", lambda path, **more: SimpleNamespace(st_mtime_ns=stat(path).st_mtime_ns, st_nlink=1)
        )
    rng = random.Random(seed)
    stems = ["a", "B", "é", "0", "a-", "a b", "x.y", ".hidden", "日本"]
    ends = [".jpg", ".JPEG", ".Jpg", ".png", ".TIFF", ".txt", "", ".jpg.txt", "jpg"]
    ends = ends[:2] if seed % 2 else ends  # only images: the fast route
    for name in ("n1", "n2", "zö"):
        folders = [tmp_path / name, *(tmp_path / name / below for below in rng.sample(["s", "s.jpg", "s/t", ".s"], 2))]
        for folder in folders[: rng.choice([1, 3])]:
            folder.mkdir(parents=True, exist_ok=True)
            for file in {rng.choice(stems) + rng.choice(ends) for _ in range(rng.choice([1, 30]))}:
                (folder / file).touch()
        (tmp_path / name / "one.jpg").touch()
    expected, digest = [], hashlib.sha256(b"n1\0n2\0" + "zö".encode())
    for label, name in enumerate(("n1", "n2", "zö")):
        for folder, _, files in sorted(os.walk(tmp_path / name)):
            below = os.path.relpath(folder, tmp_path / name)
            if below != "." and any(part[0] == "." for part in below.split("/")):
                continue
            for file in sorted(files):
                if file[0] != "." and file.lower().endswith(EXTENSIONS):
                    path = os.path.normpath(f"{below}/{file}")
                    expected.append((f"{name}/{path}", label))
                    digest.update(f"{label}/{path}\0".encode())
    files = open_list(tmp_path)
    assert list(zip(paths(files), files.image_labels().tolist())) == expected
    assert files.digest == digest.hexdigest()


def test_an_index_is_read_only_while_every_folder_is_unchanged(folder, monkeypatch):
    open_list(folder)

    def change(what) -> list[str]:
        what()
        return paths(open_list(folder))

    with monkeypatch.context() as patch:
        patch.setattr(file_list, "_list", lambda *_: pytest.fail("listed again"))
        open_list(folder)
        (folder / "a" / "9.jpg").write_bytes(b"other content")  # the names are the same
        open_list(folder)
    assert "a/sub/deep/1.jpg" in change(lambda: (folder / "a/sub/deep/1.jpg").write_bytes(b""))
    assert "c/empty/1.jpg" in change(lambda: (folder / "c/empty/1.jpg").write_bytes(b""))
    assert "b/x.jpeg" not in change(lambda: os.rename(folder / "b/x.jpeg", folder / "b/z.jpeg"))
    (folder / "d").mkdir()
    assert "d/1.jpg" in change(lambda: (folder / "d/1.jpg").write_bytes(b""))


def test_a_folder_that_may_still_change_within_its_time_gets_no_index(folder):
    (folder / "a" / "new.jpg").write_bytes(b"")
    open_list(folder)
    assert not any(path.exists() for path in index_paths(folder))


def test_an_index_goes_to_the_cache_if_the_folder_cannot_be_written(folder, monkeypatch):
    beside, cached = index_paths(folder)
    write = file_list.atomic_write

    def refuse(path, content):
        if Path(path) == beside:
            raise file_list.RunError("read-only")
        write(path, content)

    monkeypatch.setattr(file_list, "atomic_write", refuse)
    listed = open_list(folder)
    assert (beside.exists(), cached.exists()) == (False, True)
    monkeypatch.setattr(file_list, "_list", lambda *_: pytest.fail("listed again"))
    assert paths(open_list(folder)) == paths(listed)


def test_a_damaged_index_is_made_again_or_is_a_list(folder):
    """Random damage with kept seeds; and rows of wrong types."""
    whole = b"".join(packed(open_list(folder)))
    about = json.loads(whole.split(b"\n")[0])
    damaged = [whole[:k] for k in range(0, len(whole), 23)] + [b"", b"null\n", b"[" * 9999]
    for key in about:
        for value in (None, -1, 2**70, "x", [], {}, [[1]], {"a": "b"}):
            damaged.append(json.dumps({**about, key: value}).encode() + whole[whole.index(b"\n") :])
    for seed in range(200):
        rng, content = random.Random(seed), bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        damaged.append(bytes(content))
    for content in damaged:
        (folder / INDEX).write_bytes(content)
        kept = read_index(folder / INDEX)
        if kept is not None:
            assert len(kept.image_labels()) == len(kept)
            assert all("/" in name for name in map(repr, kept.folders)) or kept.folders
            kept.names.tobytes()


def test_an_index_takes_less_than_100_bytes_per_image():
    n = 100_000
    names = np.frombuffer(b"".join(b"n01440764_%05d.JPEG" % (k % 100_000) for k in range(n)), np.uint8)
    ends = np.arange(1, n + 1, dtype=np.uint32) * 20
    starts = np.arange(0, n + 1, 1000)
    files = FileList(("c",), ("c",) * 100, np.zeros(100, np.int32), starts, ends, names, "0", {"c": 1})
    size = sum(array.nbytes for array in files if isinstance(array, np.ndarray)) + files.image_labels().nbytes
    assert size < 40 * n
    assert sum(map(len, packed(files))) < 30 * n
    assert files.path(12_345) == "c/n01440764_12345.JPEG"
    with pytest.raises(IndexError):
        files.path(n)


def test_no_file_is_asked_for_its_size_in_a_large_set(folder, monkeypatch):
    asked = []
    stat = os.stat

    def counted(path, *args, **more):
        if str(path).lower().endswith(EXTENSIONS):
            asked.append(path)
        return stat(path, *args, **more)

    monkeypatch.setattr(os, "stat", counted)
    monkeypatch.setattr("fastreg.pipelines.source.SMALL", 3)
    source = open_dataset("folder", "train", folder.parent)
    assert not asked
    assert "sizes" not in source.counts
    monkeypatch.setattr("fastreg.pipelines.source.SMALL", 4096)
    assert "sizes" in open_dataset("folder", "train", folder.parent).counts


def test_a_pipe_named_as_an_image_is_a_broken_image(folder):
    os.mkfifo(folder / "a" / "pipe.jpg")
    source = open_dataset("folder", "train", folder.parent)
    (index,) = [k for k in range(len(source)) if source.describe(k).endswith("pipe.jpg")]
    assert source.read(index) == b""  # and no wait for its writer


def test_fingerprints_of_earlier_versions_are_compared_without_the_sizes():
    then = "9 images, 3 classes, 500 bytes, names 0123456789ab, sizes aaaaaaaaaaaa, content 111111111111"
    now = "9 images, 3 classes, names 0123456789ab, content 111111111111"
    assert same_data(then, now)
    assert same_data(now, then)
    check_fingerprint(then, now, "there")
    assert not same_data(then, now.replace("0123", "4567"))
    assert not same_data(then, then.replace("500", "501"))
    with pytest.raises(InputError, match="'content 111111111111' is now 'content 222222222222'"):
        check_fingerprint(now, now.replace("111111111111", "222222222222"), "there")


def test_orders_computed_ahead_are_the_orders(monkeypatch):
    monkeypatch.setattr("fastreg.pipelines.order.AHEAD", 10)
    order = Order(1000, 8, True, seed=5)
    ahead = OrderAhead(order)
    for epoch in (0, 1, 2, 7, 8, 3):
        assert np.array_equal(ahead(epoch), order.epoch(epoch))
        ahead.prepare(epoch + 1)
    with monkeypatch.context() as patch:
        patch.setattr(Order, "epoch", lambda *_: pytest.fail("computed again"))
        ahead(4)
    assert np.array_equal(
        np.concatenate([rows for _, rows in order.batches(1000 // 8 * 8, ahead)]),
        np.concatenate([rows for _, rows in order.batches(1000 // 8 * 8)]),
    )
    ahead.close()
    assert np.array_equal(ahead(4), order.epoch(4))
    ahead.close()


@pytest.mark.parametrize("n", [1, 1000, 65_536, 200_001])
@pytest.mark.parametrize("group", [None, 64, 5000, 300_000])
def test_a_permutation_is_the_stable_sort_of_its_keys(n, group):
    """Against numpy's lexsort over all keys at once, as earlier versions computed it."""
    w = philox.words(3, 11 + np.arange(n), 0, 2, "order").astype(np.uint64)
    keys = (w[:, 0] << np.uint64(32)) | w[:, 1]
    groups = np.zeros(n) if group is None else np.arange(n) // group
    assert np.array_equal(philox.permutation(3, n, 2, "order", group, 11), np.lexsort((keys, groups)))


def test_ties_are_broken_by_position():
    rng = np.random.default_rng(0)
    for size in (2, 100, 70_000):
        keys = rng.integers(0, 40 if size == 100 else size, size).astype(np.uint64)
        if size == 70_000:
            keys[rng.integers(0, size, 5)] = keys[0]
            keys[1:] = np.where(rng.random(size - 1) < 0.999, np.arange(size - 1) * 7919 % 104729 + 10**6, keys[1:])
        assert np.array_equal(philox._sorted_positions(keys), np.argsort(keys, kind="stable"))
        keys = (rng.integers(0, size, size).astype(np.uint64) << np.uint64(44)) | (keys & np.uint64(3))
        assert np.array_equal(philox._sorted_positions(keys), np.argsort(keys, kind="stable"))
    assert philox._sorted_positions(np.empty(0, np.uint64)).tolist() == []


def test_an_order_takes_16_bytes_per_image():
    import tracemalloc

    n = 1 << 20
    tracemalloc.start()
    Order(n, 64, True).epoch(1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    chunks = 8 << 20  # of the words that are computed together
    assert peak < 16 * n + chunks
