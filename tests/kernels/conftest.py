"""Fixtures of the kernels' tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def launched(monkeypatch):
    """The launches that a test makes on fake CUDA tensors, as a list of ``fake_cuda.Launch``."""
    from tests.kernels.fake_cuda import record_launches

    return record_launches(monkeypatch)
