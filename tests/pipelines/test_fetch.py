"""Downloads against a server on loopback that stops in the middle, sends wrong bytes, or ignores ranges."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import io
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from fastreg.errors import InputError, RunError
from fastreg.pipelines import fetch, fetch_files, load_frost
from fastreg.pipelines.fetch import FILES, Published


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTREG_DATA", raising=False)


@pytest.fixture
def server():
    """Serves ``files`` by name; ``stop`` cuts the first answer for a name; ``asked`` lists (name, Range)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rsplit("/", 1)[-1]
            span = self.headers.get("Range", "")
            at.asked.append((name, span))
            if name not in at.files:
                self.send_error(404)
                return
            body = at.files[name]
            start = int(span.removeprefix("bytes=").rstrip("-") or 0) if at.ranges else 0
            if start >= len(body) > 0:
                self.send_error(416)
                return
            self.send_response(206 if at.ranges else 200)
            if at.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if at.lengths:
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start : start + at.stop.pop(name, len(body))])

        def log_message(self, *_):
            pass

    at = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    at.files, at.stop, at.asked, at.ranges, at.lengths = {}, {}, [], True, True
    at.url = f"http://127.0.0.1:{at.server_port}/some/where"
    thread = threading.Thread(target=at.serve_forever, daemon=True)
    thread.start()
    yield at
    at.shutdown()
    thread.join()
    at.server_close()


def frost_package():
    return Path(importlib.util.find_spec("imagecorruptions").origin).parent / "frost"


def test_a_stopped_download_continues_where_it_stopped(server):
    server.files = {p.name: (frost_package() / p.name).read_bytes() for p in FILES["frost"]}
    server.stop["frost3.png"] = 10_000
    with pytest.raises(RunError, match="the same command continues"):
        fetch_files("frost", mirror=server.url)
    made = fetch_files("frost", mirror=server.url)
    assert ("frost3.png", "bytes=10000-") in server.asked
    asked = len(server.asked)
    assert fetch_files("frost", mirror=server.url)["path"] == made["path"] == "data/frost"
    assert len(server.asked) == asked  # nothing is fetched twice
    assert sorted(p.name for p in Path("data/frost").iterdir()) == sorted(server.files)
    for mine, theirs in zip(load_frost("data/frost"), load_frost(frost_package())):
        assert np.array_equal(mine, theirs)


def archive():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, body in (
            ("cifar-10-batches-py/batches.meta", b"names"),
            ("cifar-10-batches-py/test_batch", b"x" * 9000),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


def publish(server, monkeypatch, body):
    """``body`` as the archive that cifar10 consists of."""
    file = Published("https://nowhere.invalid/cifar-10-python.tar.gz?dl=1", "md5:" + hashlib.md5(body).hexdigest())
    monkeypatch.setitem(fetch.FILES, "cifar10", (file,))
    server.files = {file.name: body}
    return file


@pytest.mark.parametrize("ranges", [True, False])
def test_an_archive_is_checked_unpacked_and_remembered(server, monkeypatch, ranges):
    file = publish(server, monkeypatch, archive())
    server.ranges = ranges
    server.stop[file.name] = 50
    with pytest.raises(RunError, match=r"stopped at 50 of"):
        fetch_files("cifar10", mirror=server.url)
    assert fetch_files("cifar10", mirror=server.url)["fetched"] == ["cifar-10-python.tar.gz"]
    assert Path("data/cifar10/cifar-10-batches-py/test_batch").read_bytes() == b"x" * 9000
    assert fetch_files("cifar10", mirror=server.url)["fetched"] == []
    assert not list(Path("data/cifar10").glob("*.gz"))
    assert not list(Path("data/cifar10").glob("*.part"))


def test_unpacked_data_that_are_gone_are_fetched_again(server, monkeypatch):
    publish(server, monkeypatch, archive())
    folder = Path("data/cifar10/cifar-10-batches-py")
    fetch_files("cifar10", mirror=server.url)
    for loss in (lambda: (folder / "test_batch").unlink(), lambda: shutil.rmtree(folder)):
        loss()
        assert fetch_files("cifar10", mirror=server.url)["fetched"] == ["cifar-10-python.tar.gz"]
        assert (folder / "test_batch").read_bytes() == b"x" * 9000
        assert fetch_files("cifar10", mirror=server.url)["fetched"] == []


@pytest.mark.parametrize("keep", [0.1, 0.6])
def test_a_published_archive_that_is_cut_short_is_named(server, monkeypatch, keep):
    body = archive()
    publish(server, monkeypatch, body[: int(len(body) * keep)])
    with pytest.raises(RunError, match=r"cannot unpack .*cifar-10-python\.tar\.gz: .*fetch it again") as caught:
        fetch_files("cifar10", mirror=server.url)
    assert "\n" not in str(caught.value)
    assert not (Path("data/cifar10") / "cifar-10-batches-py").exists()


def test_a_break_without_a_length_keeps_what_arrived(server, monkeypatch):
    body = archive()
    file = publish(server, monkeypatch, body)
    server.lengths = False
    server.stop[file.name] = 70
    with pytest.raises(RunError, match=f"stopped at 70 of {len(body)} bytes: the same command continues"):
        fetch_files("cifar10", mirror=server.url)
    assert fetch_files("cifar10", mirror=server.url)["fetched"] == [file.name]
    assert server.asked[-1] == (file.name, "bytes=70-")


def test_a_file_with_another_checksum_is_refused_and_not_kept(server):
    server.files = {p.name: b"not frost" for p in FILES["frost"]}
    with pytest.raises(RunError, match="not the published file"):
        fetch_files("frost", mirror=server.url)
    assert list(Path("data/frost").iterdir()) == []


def test_servers_that_do_not_answer(server):
    with pytest.raises(RunError, match="404"):
        fetch_files("frost", mirror=server.url)
    with pytest.raises(RunError, match="stopped"):
        fetch_files("frost", mirror="http://127.0.0.1:9")
    with pytest.raises(InputError, match="did you mean 'frost'"):
        fetch_files("frots")


def test_every_published_file_has_a_checksum_of_the_right_length():
    for files in FILES.values():
        for file in files:
            kind, digest = file.checksum.split(":")
            assert len(bytes.fromhex(digest)) == {"md5": 16, "sha256": 32}[kind]


def test_frost_is_found_in_order_of_preference(tmp_path, monkeypatch):
    images = load_frost()  # the installed package
    assert [p.shape for p in images] == [(600, 900, 3), (315, 560, 3), (315, 560, 3), (350, 527, 3), (495, 660, 3)]
    assert all(p.dtype == np.uint8 for p in images)
    assert np.array_equal(images[1], images[2])  # as published
    monkeypatch.setenv("FASTREG_DATA", str(tmp_path))
    (tmp_path / "frost").mkdir()
    (tmp_path / "frost" / "frost1.png").write_bytes(b"not it")
    with pytest.raises(RunError, match=r"frost1\.png is not the published file"):
        load_frost()
    with pytest.raises(InputError, match="does not hold the frost images"):
        load_frost(tmp_path / "nowhere")


def test_without_frost_the_error_lists_the_ways_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="fastreg data fetch frost") as caught:
        load_frost()
    assert "pip install --no-deps imagecorruptions==1.1.2" in str(caught.value)
