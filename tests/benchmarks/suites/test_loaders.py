"""Loaders take turns, queued batches are not counted, and a loader that fails does not end the others."""

from __future__ import annotations

import sys
import time
from functools import partial

import pytest
import torch

from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers.loaders import PEERS
from fastreg.benchmarks.record import FAILED
from fastreg.benchmarks.suites.loaders import CASES, FORMS, alternate, lengthened
from fastreg.errors import InputError
from fastreg.pipelines import open_dataset
from tests.support import write_tiny_imagenet


def test_loaders_take_turns_and_their_queue_is_not_counted():
    order: list[str] = []

    def feed(name: str, seconds: float, queued: int):
        def start():
            n = 0
            while True:
                if n > queued:
                    time.sleep(seconds)
                order.append(name)
                n += 1
                yield n

        return start

    found = alternate({"slow": feed("slow", 0.02, 3), "fast": feed("fast", 0.001, 3)}, 2, 0.3, ahead=4)
    assert found["slow"].low >= 20_000  # the three queued batches came without a wait
    assert found["fast"].us < found["slow"].us
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == ["slow", "fast"] * 4  # one batch each to start, then three turns


def test_a_loader_that_does_not_run_is_named():
    def missing():
        raise InputError("install it")
        yield

    def broken():
        raise OSError("no such decoder")
        yield

    def works():
        while True:
            time.sleep(0.001)
            yield 0

    found = alternate({"missing": missing, "broken": broken, "works": works}, 1, 0.05, ahead=1)
    assert found["missing"] == "install it"
    assert found["broken"] == f"{FAILED} OSError: no such decoder"
    assert found["works"].us >= 1000


def test_every_form_is_a_case():
    assert list(CASES) == ["load folder", "load dali", *(f"load ffcv {form}" for form in FORMS)]


@pytest.mark.parametrize("scope", ["main"])
def test_the_speed_mode_has_fastregs_loaders_only(scope, monkeypatch):
    import torch

    from fastreg.benchmarks.options import BenchmarkOptions
    from fastreg.benchmarks.suites import loaders

    seen = []

    def stop(variants, sample, seconds, ahead):
        seen.append((list(variants), ahead))
        return dict.fromkeys(variants, "not measured here")

    monkeypatch.setattr(loaders, "alternate", stop)
    monkeypatch.setattr(loaders, "CASES", {"load folder": "folder"})
    for case in loaders.cases(BenchmarkOptions(torch.device("cpu"), scope), {}):
        list(case.rows())
    assert seen == [(["fastreg"], 8)]


def test_a_lengthened_source_has_every_sample_again(tmp_path):
    source = open_dataset("imagenet", "train", write_tiny_imagenet(tmp_path, train=3))
    longer = lengthened(source, 2)
    assert len(longer) == 2 * len(source)
    for index in (0, 5, 11):
        assert longer.read(index + len(source)) == longer.read(index) == source.read(index)
        assert longer.labels[index + len(source)] == source.labels[index]


@pytest.mark.parametrize("name", ["SPDL", "SPDL + simplejpeg", "DataLoader + torchvision"])
def test_peers_deliver_crops_or_say_what_is_missing(name, tmp_path):
    source = open_dataset("imagenet", "train", write_tiny_imagenet(tmp_path, classes=2, train=8, val=1))
    feed = PEERS["folder"][name](source, 4, 24, 2, BenchmarkOptions(torch.device("cpu")))
    missing = ""
    try:
        images, labels = next(feed)
    except ImportError as error:
        missing = str(error)
    finally:
        feed.close()
    if missing:  # printed in place of a time
        assert any(word in missing for word in ("cannot be loaded", "is not installed", "needs"))
        return
    assert (images.shape, images.dtype, len(labels)) == ((4, 24, 24, 3), torch.uint8, 4)
    assert set(labels.tolist()) <= {0, 1}
    assert images.float().std() > 10  # pixels, not an empty buffer


def test_a_missing_package_is_the_reason(monkeypatch, tmp_path):
    source = open_dataset("imagenet", "train", write_tiny_imagenet(tmp_path, classes=2, train=2, val=1))
    monkeypatch.setitem(sys.modules, "spdl", None)
    monkeypatch.delitem(sys.modules, "spdl.pipeline", raising=False)
    monkeypatch.delitem(sys.modules, "spdl.io", raising=False)
    options = BenchmarkOptions(torch.device("cpu"))
    spdl = {name: partial(PEERS["folder"][name], source, 2, 24, 1, options) for name in ("SPDL", "SPDL + simplejpeg")}
    found = alternate(spdl, 1, 0.05, ahead=1)
    assert all("pip install" in str(reason) for reason in found.values())
