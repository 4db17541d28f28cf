"""Fixtures of the training tests; tiny_runs.py has the data and settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fastreg.training import tiny_runs as tiny
from tests.support import write_tiny_imagenet


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Data of all methods."""
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def image_folders(tmp_path_factory) -> Path:
    """Class folders of four classes: 64 images to train, 64 to validate, so that few errors are chance."""
    return write_tiny_imagenet(tmp_path_factory.mktemp("tiny"), val=16)


@pytest.fixture
def quick(monkeypatch, data):
    """The small network on :func:`data`; a MonkeyPatch."""
    yield from tiny.shrunk(monkeypatch, data)
