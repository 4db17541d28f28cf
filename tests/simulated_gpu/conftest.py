"""Fixtures of the simulated GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fastreg.training import tiny_runs as tiny
from tests.simulated_gpu.guard import load, unavailable

if not unavailable():
    load()  # during the collection: autograd counts devices once, in the first backward pass of the process

COMBINATIONS: Counter[str] = Counter()


@pytest.hookimpl(tryfirst=True)  # before slow tests are deselected
def pytest_collection_modifyitems(items):
    COMBINATIONS.update(item.path.stem for item in items if item.path.parent == Path(__file__).parent)


def pytest_report_collectionfinish():
    counts = ", ".join(f"{count} {name.removeprefix('test_')}" for name, count in COMBINATIONS.items())
    return f"simulated GPU, slow tests included: {counts}" if counts else None


@pytest.fixture
def gpu(monkeypatch):
    """The simulated GPU, for the length of a test."""
    if reason := unavailable():
        pytest.skip(reason)
    from tests.simulated_gpu.runtime import simulated_gpu

    with simulated_gpu(monkeypatch) as simulated:
        yield simulated


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def quick(data):
    with pytest.MonkeyPatch.context() as patch:
        yield from tiny.shrunk(patch, data)
