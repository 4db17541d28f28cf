"""The throughput suite, run for real at a small size."""

from __future__ import annotations

import pytest
import torch

from fastreg.benchmarks import record, run
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.record import OURS, Absent
from fastreg.benchmarks.suites import throughput
from tests.support import write_tiny_imagenet


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny_imagenet(tmp_path_factory.mktemp("tiny"), train=16)


@pytest.mark.slow
def test_throughput_on_a_data_set(data, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "LOADERS", ("folder", "nonsense"))
    options = {"device": "cpu", "batch_size": 4, "size": 32, "data_dir": str(data), "quick": True, "out": tmp_path}
    found = run("throughput", **options)
    record.check(found)
    rows = {(r.name, r.variant): r for _, r in record.rows_of(found)}
    fed = rows["step mixup, fed by folder", OURS]
    assert 0 <= fed.more["data_wait"] <= 1
    assert rows["step none", "bare loop"].images == 4
    mixup = rows["step mixup", OURS]  # beside the plain step of the same rounds
    assert mixup.more["beside"] == "step none / fastreg"
    assert 0.2 < mixup.us / mixup.more["beside_us"] < 5
    absent = {one["name"]: one["reason"] for one in found["suites"]["throughput"]["absent"]}
    assert "unknown loader 'nonsense'" in absent["step mixup, fed by nonsense"]
    (path,) = tmp_path.glob("*.json")
    assert record.read(path)["suites"].keys() == {"throughput"}


def test_without_a_data_set_the_error_lists_the_ways_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTREG_DATA", raising=False)
    monkeypatch.setattr(throughput, "_ready_cases", lambda *_: iter(()))
    cases = throughput.cases(BenchmarkOptions(torch.device("cpu")), {})
    found = [one for case in cases for one in case.rows()]
    assert len(found) == len(throughput.LOADERS)
    assert all(isinstance(one, Absent) and "fastreg data sample imagenet" in one.reason for one in found)
