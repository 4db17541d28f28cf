"""The archive of compiled kernels: kernels unpacked on another machine are found there, and not compiled again."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from fastreg.benchmarks.gpu_check import cache
from fastreg.benchmarks.gpu_check.compile_all import compile_all
from fastreg.benchmarks.gpu_check.pool import Pool
from fastreg.benchmarks.gpu_check.work import CHECKS
from tests.support import ROOT, environment

CODE = """
import sys, triton
from fastreg.benchmarks.gpu_check import work
(key,) = dict(work.record_launches(["fgsm_step contiguous_format"], work.CHECKS, True, 90)).popitem()[1]["keys"]
if sys.argv[1] == "cached":
    from triton.backends.nvidia.compiler import CUDABackend
    CUDABackend.make_cubin = None  # nothing can be compiled
work._recorded[key].compile()
print("done")
"""


def run(folder, word: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "-c", CODE, word]
    env = environment(TRITON_CACHE_DIR=str(folder / "triton"))
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_kernels_are_found_where_they_are_unpacked(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(here, "compile").stdout == "done\n"
    assert run(there, "cached").returncode != 0  # nothing is there yet
    size = cache.pack(here, tmp_path / cache.ARCHIVE)
    assert 0 < size < cache.LIMIT
    assert size == (tmp_path / cache.ARCHIVE).stat().st_size
    there = tmp_path / "another machine"
    names = cache.unpack(tmp_path / cache.ARCHIVE, there)
    assert names > 0
    assert not [path for path in there.rglob("*") if path.suffix in (".ttir", ".llir", ".ptx")]
    for path in here.rglob("*"):
        if path.is_file():
            path.unlink()
    done = run(there, "cached")
    assert done.stdout == "done\n", done.stderr


def test_there_is_no_archive_over_the_limit_and_none_of_nothing(tmp_path, monkeypatch):
    (tmp_path / "cache" / "triton" / "a").mkdir(parents=True)
    assert cache.pack(tmp_path / "cache", tmp_path / "archive") == 0
    (tmp_path / "cache" / "triton" / "a" / "k.cubin").write_bytes(bytes(range(256)))
    size = cache.pack(tmp_path / "cache", tmp_path / "archive")
    monkeypatch.setattr(cache, "LIMIT", size - 1)
    assert cache.pack(tmp_path / "cache", tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_first_pass_compiles_each_specialization_once(tmp_path, monkeypatch):
    """Two workers record checks that share kernels, and divide their compilations."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = [f"loss 7x37 smoothing {eps} none float32" for eps in (0.0, 0.1)]  # share the backward pass
    pool = Pool(2, tmp_path / "crashes.txt")
    try:
        count = compile_all(
            pool,
            [*names, "fgsm_step channels_last"],
            "fastreg.benchmarks.gpu_check.work:record_launches",
            (CHECKS, True),
            time.monotonic() + 250,
            capability=90,
        )
    finally:
        pool.close()
    assert count == 4  # forward and backward; forward without smoothing; the attack
    assert len(list((tmp_path / "triton").rglob("*.cubin"))) == 4


def test_the_workers_share_the_specializations(tmp_path):
    """Four workers that record the same six keys compile each key once, in lists of similar length."""
    asked = []

    class Recorder:
        workers = range(4)

        def run(self, requests, note, deadline):
            asked.append([list(request.items) for request in requests])
            for item in (item for request in requests for item in request.items if len(asked) == 1):
                note(item, {"keys": list("abcdef")})

    assert compile_all(Recorder(), ["w", "x", "y", "z"], "record", (), 0.0, capability=90) == 6
    assert sorted(key for keys in asked[1] for key in keys) == list("abcdef")
    assert sorted(map(len, asked[1])) == [1, 1, 2, 2]
