"""Data behind an address: shards are downloaded whole, once, within a limit; a bad server ends in one sentence."""

from __future__ import annotations

import http.server
import os
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.errors import InputError, RunError
from fastreg.pipelines import http_files, make_loader, open_dataset, retry, shard_cache, write_beton
from fastreg.pipelines.address import expand_braces, is_address, normalized
from tests.pipelines.shard_files import write_parquet, write_shards


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A set of 24 noisy images as class folders, shards, parquet files and .beton file, in one folder each."""
    root = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(3)
    for split in ("train", "val"):
        for k in range(24):
            path = root / "folder" / split / f"c{k % 3}" / f"{k:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((64, 48), Image.BICUBIC)
            image.save(path, quality=90)
        source = open_dataset("folder", split, root / "folder")
        write_shards(source, root / "tar")
        write_parquet(source, root / "parquet")
        write_beton("folder", root / "folder", root / "beton" / f"{split}.beton", jpeg_prob=1, quality=None)
    (root / "tar" / "classes.txt").write_text("c0\nc1\nc2\n")
    return root


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTREG_CACHE_GB", raising=False)
    monkeypatch.setattr(retry, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def server(small):
    """Serves ``small``; ``faults`` maps a name to what happens to its next answers; ``asked`` lists (method, name)."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(small))

        def do_HEAD(self):
            name = self.path.rsplit("/", 1)[-1]
            at.asked.append(("HEAD", name, ""))
            super().do_HEAD()

        def do_GET(self):
            name, span = self.path.rsplit("/", 1)[-1], self.headers.get("Range", "")
            at.asked.append(("GET", name, span))
            path = small / self.path.lstrip("/")
            if not path.is_file():
                return super().do_GET()
            fault = at.faults[name].pop(0) if at.faults.get(name) else None
            if isinstance(fault, int):
                return self.send_error(fault)
            body = path.read_bytes()
            start = int(span.removeprefix("bytes=").partition("-")[0]) if span and at.ranges else 0
            self.send_response(206 if span and at.ranges else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            body = body[start:]
            if fault in ("cut", "stall"):
                body = body[: len(body) // 2]
            self.wfile.write(body)
            self.wfile.flush()
            at.sent += len(body)
            if fault == "stall":
                at.released.wait(20)

        def log_message(self, *_):
            pass

    at = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    at.faults, at.asked, at.ranges, at.released = {}, [], True, threading.Event()
    at.sent = 0  # bytes of files
    at.url = f"http://127.0.0.1:{at.server_port}"
    thread = threading.Thread(target=at.serve_forever, daemon=True)
    thread.start()
    yield at
    at.released.set()
    at.shutdown()
    thread.join()
    at.server_close()


def same(source, folder) -> bool:
    alike = source.labels.tolist() == folder.labels.tolist() and source.classes == folder.classes
    return alike and all(source.read(k) == folder.read(k) for k in range(len(folder)))


@pytest.mark.parametrize("scheme", ["file", "memory", "http"])
@pytest.mark.parametrize("storage", ["folder", "beton", "tar", "parquet"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_storage_behind_every_address_is_the_local_set(small, server, scheme, storage, split):
    folder = open_dataset("folder", split, small / "folder")
    address = {"file": f"file://{small}/{storage}", "http": f"{server.url}/{storage}"}.get(scheme)
    if address is None:
        memory = fsspec.filesystem("memory")
        memory.put(str(small / storage), f"/set/{storage}", recursive=True)
        address = f"memory://set/{storage}"
    source = open_dataset("folder", split, Path(address))  # whose double slash becomes a single one
    assert same(source, folder)
    kw = {"train": split == "train", "batch_size": 4, "size": 32, "seed": 2, "rank": 1, "world": 2}
    with make_loader(source, **kw) as a, make_loader(folder, **kw) as b:
        for x, y in zip(a.batches(8), b.batches(8), strict=True):
            assert torch.equal(x.images, y.images)
            assert torch.equal(x.labels, y.labels)


def downloads(server) -> list[str]:
    return [name for method, name, _ in server.asked if method == "GET" and name.startswith(("train", "val"))]


def test_a_shard_is_downloaded_once_whatever_opens_it(small, server):
    pattern = f"{server.url}/tar/{{split}}-{{0000..0002}}.tar"
    folder = open_dataset("folder", "train", small / "folder")
    assert same(open_dataset("folder", "train", pattern), folder)
    assert same(open_dataset("folder", "train", pattern), folder)
    assert same(open_dataset("folder", "train", f"{server.url}/tar/train-*.tar"), folder)
    assert sorted(downloads(server)) == ["train-0000.tar", "train-0001.tar", "train-0002.tar"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("fault", ["cut", "stall", 500, 429])
def test_a_server_that_fails_once_is_asked_again(small, server, monkeypatch, fault, ranges):
    monkeypatch.setattr(http_files, "STALL_SECONDS", 0.5)
    server.faults, server.ranges = {"train-0001.tar": [fault]}, ranges
    folder = open_dataset("folder", "train", small / "folder")
    assert same(open_dataset("folder", "train", f"{server.url}/tar/train-{{0000..0002}}.tar"), folder)
    spans = [span for _, name, span in server.asked if name == "train-0001.tar" and _ == "GET"]
    size = (small / "tar" / "train-0001.tar").stat().st_size
    assert spans == ["", f"bytes={size // 2}-" if fault in ("cut", "stall") else ""]  # it goes on where it stopped


@pytest.mark.parametrize("fault", ["cut", "stall", 503, 403])
def test_a_server_that_keeps_failing_ends_in_one_sentence_soon(server, monkeypatch, fault):
    monkeypatch.setattr(http_files, "STALL_SECONDS", 0.3)
    server.faults = {"train-0000.tar": [fault] * 1000}
    server.ranges = False
    with pytest.raises(RunError, match=r"cannot download http://127\.0\.0\.1:\d+/tar/train-0000\.tar: ") as caught:
        open_dataset("folder", "train", f"{server.url}/tar/train-0000.tar")
    assert "\n" not in str(caught.value)
    tries = downloads(server).count("train-0000.tar")
    assert tries == (1 if fault == 403 else retry.TRIES)


def test_a_file_replaced_between_two_parts_of_its_download_is_refused(small, server, monkeypatch, tmp_path):
    """Also one of the same size, and from a server that sends no ranges; the next start reads the new file."""
    path, other = small / "tar" / "train-0000.tar", (small / "tar" / "train-0001.tar").read_bytes()
    original, facts = path.read_bytes(), path.stat()
    other = other[: len(original)].ljust(len(original), b"\0")

    def replace(_: float) -> None:
        path.write_bytes(other)
        os.utime(path, (facts.st_atime, facts.st_mtime + 100))

    monkeypatch.setattr(retry.time, "sleep", replace)
    try:
        for server.ranges in (True, False):
            server.faults = {path.name: ["cut"]}
            with pytest.raises(InputError, match=r"train-0000\.tar was replaced while it was downloaded: start again"):
                open_dataset("folder", "train", f"{server.url}/tar/train-0000.tar")
            assert not any("train" in copy.name for copy in cached(tmp_path))
            path.write_bytes(original)
            os.utime(path, (facts.st_atime, facts.st_mtime))
    finally:
        path.write_bytes(original)
        os.utime(path, (facts.st_atime, facts.st_mtime))
    assert len(open_dataset("folder", "train", f"{server.url}/tar/train-0000.tar")) == 8


@pytest.mark.parametrize("storage", ["tar", "parquet", "beton"])
def test_a_set_behind_a_bad_server_is_the_local_set_for_a_tenth_more_bytes(small, server, monkeypatch, storage):
    """The server stalls, cuts and fails for each file; an epoch of four ranks and a resume follow."""
    monkeypatch.setattr(http_files, "STALL_SECONDS", 0.4)
    files = [path for path in (small / storage).iterdir() if path.name.startswith("train")]
    faults = [["stall", 503, "cut"], ["cut", "cut", 429], [500, "stall"]]
    server.faults = {path.name: list(faults[k % 3]) for k, path in enumerate(sorted(files))}
    folder = open_dataset("folder", "train", small / "folder")
    source = open_dataset("folder", "train", f"{server.url}/{storage}")
    assert same(source, folder)
    for world in (1, 4):
        for rank in range(world):
            for position in (0, 8):
                kw = {"train": True, "batch_size": 8 // world, "size": 16, "seed": 2, "rank": rank, "world": world}
                with make_loader(source, **kw) as a, make_loader(folder, **kw) as b:
                    for x, y in zip(a.batches(position), b.batches(position), strict=True):
                        assert all(torch.equal(p, q) for p, q in zip(x[:3], y[:3], strict=True))
    assert not any(server.faults.values())  # all of them happened
    listed = (small / "tar" / "classes.txt").stat().st_size
    assert server.sent <= 1.1 * sum(path.stat().st_size for path in files) + listed


def test_addresses_of_nothing(server, tmp_path):
    with pytest.raises(InputError, match="does not exist or is empty"):
        open_dataset("folder", "train", f"{server.url}/nowhere")
    with pytest.raises(InputError, match=r"train-0003\.tar of .* does not exist"):
        open_dataset("folder", "train", f"{server.url}/tar/train-{{0000..0003}}.tar")
    with pytest.raises(InputError, match=r"train\.tar does not exist"):
        open_dataset("folder", "train", f"{server.url}/tar/train.tar")
    with pytest.raises(RunError, match=r"cannot reach http://127\.0\.0\.1:9/x\.tar: .*refused"):
        open_dataset("folder", "train", "http://127.0.0.1:9/x.tar")
    with pytest.raises(InputError, match="nosuch:// is not a scheme that fsspec knows"):
        open_dataset("folder", "train", "nosuch://bucket/x.tar")
    with pytest.raises(InputError, match=r"addresses of s3 need fsspec and its package for them .*remote"):
        open_dataset("folder", "train", "s3://bucket/x.tar")
    with pytest.raises(InputError, match="read from a local folder"):
        open_dataset("cifar10", "train", f"{server.url}/cifar")


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "shards").iterdir() if not path.name.startswith(".")]


def test_the_cache_stays_below_its_limit_and_drops_the_shard_unused_for_longest(small, server, tmp_path, caplog):
    folder = open_dataset("folder", "train", small / "folder")
    size = (small / "tar" / "train-0000.tar").stat().st_size
    limit = 2.5 * size / 1e9
    source = open_dataset("folder", "train", f"{server.url}/tar", cache_gb=limit)
    assert not source.fits_cache
    assert open_dataset("folder", "train", f"{server.url}/tar").fits_cache
    make_loader(source, train=True, batch_size=4, size=32, page_order=True)
    assert caplog.text == ""
    make_loader(source, train=True, batch_size=4, size=32)
    assert "is larger than the cache" in caplog.text
    source = open_dataset("folder", "train", f"{server.url}/tar", cache_gb=limit)
    assert sum(path.stat().st_size for path in cached(tmp_path)) <= limit * 1e9
    for index in (0, 8, 0, 16, 0):  # one of each shard, the first again and again
        assert source.read(index) == folder.read(index)
        time.sleep(0.01)
    assert sorted(path.name.split("-", 1)[1] for path in cached(tmp_path)) == ["train-0000.tar", "train-0002.tar"]
    assert same(source, folder)
    with pytest.raises(InputError, match=r"train-0000\.tar has .* GB and the cache holds .*: raise `cache_gb`"):
        open_dataset("folder", "train", f"{server.url}/tar", cache_gb=0.5 * size / 1e9, cache_dir=tmp_path / "tight")
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InputError, match="`cache_gb` is"):
            open_dataset("folder", "train", f"{server.url}/tar", cache_gb=wrong)


def test_four_ranks_share_a_cache_that_is_too_small_for_all(small, server, monkeypatch):
    folder = open_dataset("folder", "train", small / "folder")
    limit = 1.2 * (small / "tar" / "train-0000.tar").stat().st_size / 1e9
    sources = [open_dataset("folder", "train", f"{server.url}/tar", cache_gb=limit) for _ in range(4)]
    wrong: list[int] = []

    def read(source, start):
        for k in range(24):
            index = (start + 7 * k) % 24
            if source.read(index) != folder.read(index):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(source, 6 * k)) for k, source in enumerate(sources)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_full_disk_is_not_tried_again(small, server, tmp_path, monkeypatch):
    def full(self, partial, block):
        raise RunError(f"cannot write to {self.folder}: No space left on device; free some space")

    monkeypatch.setattr(shard_cache.ShardCache, "_append", full)
    with pytest.raises(RunError, match="No space left on device"):
        open_dataset("folder", "train", f"{server.url}/tar/train-0000.tar")
    assert [name for method, name, _ in server.asked if method == "GET"] == ["classes.txt"]  # the first file


def test_a_changed_remote_shard_is_downloaded_again(small, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/changing/train.tar", (small / "tar" / "train-0000.tar").read_bytes())
    first = open_dataset("folder", "train", "memory://changing/train.tar")
    memory.pipe("/changing/train.tar", (small / "tar" / "train-0001.tar").read_bytes())
    second = open_dataset("folder", "train", "memory://changing/train.tar")
    folder = open_dataset("folder", "train", small / "folder")
    assert first.read(0) == folder.read(0)
    assert second.read(0) == folder.read(8)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{x,y}/{0..1}", ["x/0", "x/1", "y/0", "y/1"]),
        ("{a}", ["a"]),
        ("p{,q}", ["p", "pq"]),
    ],
)
def test_braces(pattern, names):
    assert expand_braces(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..999999999999}", "{5..1}", "{0..999}{0..999}{0..999}"])
def test_braces_that_stand_for_nothing_or_too_much(pattern):
    with pytest.raises(InputError, match="correct its braces"):
        expand_braces(pattern)


def test_addresses_and_paths():
    assert normalized("file:///a/b") == normalized(Path("file:///a/b")) == "/a/b"
    assert normalized(Path("s3://bucket/a")) == "s3://bucket/a"
    assert is_address("hf://datasets/x")
    assert not is_address("file:///a")
    assert not is_address("/a/b://c")
    assert not is_address("a/b.tar")
