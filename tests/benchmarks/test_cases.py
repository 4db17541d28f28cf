"""One case: the order of its measurements, and the effect of a failing variant."""

from __future__ import annotations

import pytest
import torch

from fastreg.benchmarks import cases, timing
from fastreg.benchmarks.cases import is_cuda_error, timed, timed_beside, with_launches
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.record import Absent
from fastreg.benchmarks.suites import corruptions, eval, kernels, loss, throughput
from fastreg.benchmarks.timing import StubClock, Timing

CPU = torch.device("cpu")


@pytest.fixture
def log(monkeypatch):
    """The calls in order; every variant is captured, as on a GPU."""
    events: list[str] = []

    def measure(variants, device, **more):
        events.append("measure " + ", ".join(variants))
        return {name: Timing(10.0, 9.0, 11.0, 5, "graph") for name in variants}

    monkeypatch.setattr(cases, "measure", measure)
    monkeypatch.setattr(cases, "host_us", lambda call, sets: events.append("host") or 3.0)
    monkeypatch.setattr(cases, "launches", lambda call: events.append("profiler") or 2)
    return events


def test_host_time_comes_before_any_profiler(log):
    """The profiler slows every later call of the process, so it comes after all cases."""
    options = BenchmarkOptions(CPU)
    given = {"sets": 1, "images": 4, "moved": 0}
    rows = [
        r for name in ("a", "b") for r in timed(options, name, {"fastreg": lambda i: 0, "copy": lambda i: 0}, **given)
    ]
    assert log == ["measure fastreg, copy", "host", "host"] * 2
    assert all(r.more == {"how": "graph", "host_us": 3.0} for r in rows)
    again = list(with_launches(options))
    assert log[6:] == ["profiler"] * 4
    assert [(r.name, r.variant, r.more["launches"], r.more["host_us"]) for r in again] == [
        (name, variant, 2, 3.0) for name in ("a", "b") for variant in ("fastreg", "copy")
    ]
    assert list(with_launches(options)) == []


def test_a_failing_variant_is_named_and_the_others_are_measured(log):
    def broken(i):
        raise RuntimeError("no kernel\nsecond line")

    options = BenchmarkOptions(CPU)
    found = list(timed(options, "a", {"peer": broken, "fastreg": lambda i: 0}, sets=1, images=1, moved=0))
    assert found[0] == Absent("a", "peer", "it fails: RuntimeError: no kernel")
    assert [r.variant for r in found[1:]] == ["fastreg"]


def test_a_cuda_error_is_not_taken_for_a_failing_variant(log):
    def broken(i):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        list(timed(BenchmarkOptions(CPU), "a", {"fastreg": broken}, sets=1, images=1, moved=0))
    assert is_cuda_error("torch.AcceleratorError: CUDA error: device-side assert triggered")
    assert not is_cuda_error("OutOfMemoryError: CUDA out of memory")


def test_a_row_beside_a_base_keeps_the_bases_time(log):
    options = BenchmarkOptions(CPU)
    given = {"sets": 1, "images": 4, "seconds": 1.0, "sample_seconds": 0.1}
    (row,) = timed_beside(
        options, "step mixup", {"fastreg": lambda i: 0}, ("step none / fastreg", lambda i: 0), **given
    )
    assert log == ["measure fastreg, step none / fastreg"]
    assert row.more == {"how": "graph", "beside": "step none / fastreg", "beside_us": 10.0}


@pytest.mark.parametrize("suite", [kernels, loss, throughput, corruptions, eval], ids=lambda module: module.__name__)
def test_a_row_is_yielded_before_the_next_case_is_measured(suite, monkeypatch):
    """A time limit that ends a suite leaves all rows that have been measured."""
    clock = StubClock()
    measured = []
    whole = clock.measure
    monkeypatch.setattr(clock, "measure", lambda variants, seconds: measured.append(1) or whole(variants, seconds))
    monkeypatch.setattr(timing, "stub", clock)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(throughput, "METHODS", ("none", "mixup"))
    monkeypatch.setattr(throughput, "_pyramidnet", lambda options: iter(()))
    options = BenchmarkOptions(CPU, "quick", batch_size=2, size=32, model="resnet18")
    rows = 0
    for case in suite.cases(options, {}):
        for found in case.rows():
            if not isinstance(found, Absent):
                rows += 1
                assert rows >= len(measured)  # no measurement whose rows are still to come
        if rows >= 3:
            return
    assert rows


def test_a_call_that_cannot_be_captured_is_timed_by_events(monkeypatch):
    """A call that cannot be captured leaves no output behind, and is timed eagerly."""

    def broken(function, *, warm_up):
        function()
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(timing, "capture", broken)
    kept: list = [None, None]
    assert timing._captured(lambda i: object(), 2, 4, kept) is None
    assert kept == [None, None]
    monkeypatch.setattr(timing, "capture", lambda function, *, warm_up: (function, None))
    replay = timing._captured(lambda i: i, 2, 4, kept)
    replay()
    assert kept == [0, 1]
