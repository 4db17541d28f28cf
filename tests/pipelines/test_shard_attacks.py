"""Shards and servers that ask for more than they give: time, memory, disk space, or another folder."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastreg.errors import InputError, RunError
from fastreg.evaluation.corrupted_layouts import digest_of_array, file_names
from fastreg.pipelines import make_loader, open_dataset, retry
from fastreg.pipelines.address import Shard
from fastreg.pipelines.npy import open_npy
from fastreg.pipelines.shard_cache import ShardCache
from fastreg.pipelines.tar_scan import scan_tar
from tests.pipelines.shard_files import write_parquet, write_shards
from tests.pipelines.test_shard_damage import header, shard_of


@pytest.fixture(scope="module")
def folder(data):
    return open_dataset("imagenet", "val", data / "imagenet")


@pytest.fixture
def endless(monkeypatch):
    """A server that announces 1000 bytes, or nothing, and never stops to send."""
    monkeypatch.setattr(retry, "PAUSE_SECONDS", 0.01)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.send_response(200)
            if "known" in self.path:
                self.send_header("Content-Length", "1000")
            self.end_headers()

        def do_GET(self):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                    at.sent += 0x10000
            except OSError:
                self.close_connection = True

        def log_message(self, *_):
            pass

    at = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    at.sent = 0
    thread = threading.Thread(target=at.serve_forever, daemon=True)
    thread.start()
    yield at
    at.shutdown()
    thread.join()
    at.server_close()


@pytest.mark.parametrize(("name", "size"), [("known", 1000), ("unknown", -1)])
def test_a_server_that_never_stops_fills_no_disk(endless, tmp_path, name, size):
    cache = ShardCache(tmp_path, 0.005)
    shard = Shard(f"http://127.0.0.1:{endless.server_port}/{name}.tar", size)
    with pytest.raises(RunError, match=r"cannot download .*: it sends more than [\d,]+ bytes \(tried 4 times\)"):
        cache.local_path(shard)
    left = sum(path.stat().st_size for path in tmp_path.rglob("*"))
    assert left < 20_000  # folders alone
    assert endless.sent < 100_000_000


@pytest.mark.parametrize("name", ["日本" * 60 + ".tar", "a\nb.tar", "x" * 300, "%2e%2e%2f", "..", ""])
def test_any_name_of_a_shard_is_one_file_in_the_cache(tmp_path, monkeypatch, name):
    cache = ShardCache(tmp_path)
    monkeypatch.setattr(cache, "_download", lambda shard, partial: partial.write_bytes(b"1234"))
    path = cache.local_path(Shard(f"http://host/{name}", 4))
    assert path.parent == tmp_path / "shards"
    assert cache.read(Shard(f"http://host/{name}", 4), 1, 2) == b"23"


def test_memory_is_reserved_for_bytes_that_are_there(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"1234")
    with pytest.raises(OSError, match="ends after 3 of 115"):
        ShardCache(tmp_path).read(Shard(str(tmp_path / "x.tar"), 4), 1, 1 << 60)


def test_an_extended_header_of_many_records_takes_linear_time(tmp_path):
    def seconds(records: int) -> float:
        content = b"6 ab=\n" * records
        path = tmp_path / f"{records}.tar"
        path.write_bytes(
            shard_of(header("x", b"%011o" % len(content), b"x"), content, header("a.jpg", b"0"), bytes(1024))
        )
        with open(path, "rb") as file:
            start = time.process_time()
            scan_tar(file.fileno(), 0, os.path.getsize(path))
            return time.process_time() - start

    assert seconds(120_000) < 40 * max(seconds(12_000), 1e-3)  # 100 times, if it were quadratic


def test_a_parquet_file_cannot_claim_more_images_than_bytes(tmp_path):
    rows = 2_000_000
    table = {"image": pa.nulls(rows, pa.binary()), "label": pa.array(np.zeros(rows, np.int64))}
    pq.write_table(pa.table(table), tmp_path / "val-0.parquet", row_group_size=rows)
    assert os.path.getsize(tmp_path / "val-0.parquet") < 100_000
    with pytest.raises(InputError, match=r"val-0\.parquet: it claims 2,000,000 images in [\d,]+ bytes; replace it"):
        open_dataset("folder", "val", tmp_path)


@pytest.mark.parametrize("write", [write_shards, write_parquet])
def test_a_shard_cut_while_it_is_read_is_named(folder, tmp_path, write):
    (path, *_) = write(folder, tmp_path, 1)
    source = open_dataset("folder", "val", tmp_path)
    with make_loader(source, train=False, batch_size=4, size=32, workers=1) as loader:
        batches = loader.batches()
        next(batches)
        os.truncate(path, os.path.getsize(path) // 16)
        with pytest.raises(RunError, match=f"cannot decode {path}"):
            list(batches)


def test_an_array_cut_while_it_is_read_is_named(tmp_path):
    """A memory map would end the process with SIGBUS."""
    images = np.arange(40_000, dtype=np.int32).reshape(4000, 5, 2)
    path = tmp_path / "x.npy"
    np.save(path, images)
    rows = open_npy(path)
    assert np.array_equal(rows[7:9], images[7:9])
    assert np.array_equal(rows[3990:], images[3990:])
    assert np.array_equal(rows[10::1300], images[10::1300])
    assert digest_of_array(path) != ""
    os.truncate(path, 5000)
    assert np.array_equal(rows[7:9], images[7:9])
    with pytest.raises(RunError, match=r"x\.npy was cut to 5,000 bytes while in use"):
        rows[3000:3001]
    assert digest_of_array(path) == ""


@pytest.mark.parametrize("name", ["../../outside", "/etc", "..", "a/b", "", "a\0b"])
def test_a_class_name_leads_into_no_other_folder(name):
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        file_names(["x", "y"], ["good", name], [0, 1])
    assert file_names(["x"], [".hidden", "a..b"], [1]) == ["a..b/00000000.JPEG"]


def test_a_list_of_classes_names_each_once(folder, tmp_path):
    write_shards(folder, tmp_path, 1, label=lambda label, name: [("cls", b"ant")])
    (tmp_path / "classes.txt").write_text("ant\nbee\nant\n")
    with pytest.raises(InputError, match=r"classes\.txt .* has 'ant' twice"):
        open_dataset("folder", "val", tmp_path)
    (tmp_path / "classes.txt").write_text("\ufeffant\nbee\n\n\n")
    assert open_dataset("folder", "val", tmp_path).classes == ("ant", "bee")


def test_a_damaged_index_beside_shards_is_made_again(folder, tmp_path):
    write_shards(folder, tmp_path, 1)
    source = open_dataset("folder", "val", tmp_path)
    (index,) = tmp_path.glob(".fastreg-index-*")
    about, arrays = index.read_bytes().split(b"\n", 1)
    for change in ({"samples": 1e999}, {"samples": None}, {"classes": 5}, {"samples": [1]}):
        index.write_bytes(json.dumps({**json.loads(about), **change}).encode() + b"\n" + arrays)
        assert open_dataset("folder", "val", tmp_path).fingerprint == source.fingerprint
    index.write_bytes(b"[" * 100_000 + b"\n" + arrays)
    assert open_dataset("folder", "val", tmp_path).fingerprint == source.fingerprint
