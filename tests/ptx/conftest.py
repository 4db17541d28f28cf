"""Compiled kernels, executed on the CPU: ``make ptx``.

PTX that Triton compiles for a GPU is translated to C and run on CPU tensors, with every access checked. Without
FASTREG_PTX=1 nothing here is collected (``tests/conftest.py`` prints why): a cold run takes minutes of gcc.
"""

from __future__ import annotations

import os

import pytest
import torch

collect_ignore_glob = [] if os.environ.get("FASTREG_PTX") == "1" else ["test_*.py"]


@pytest.fixture(scope="session")
def ptx_cache():
    """Triton's cache beside the C code's, because the user's cache must not get entries without machine code."""
    from triton import knobs

    from tests.ptx.build import CACHE, GCC

    if GCC is None:
        pytest.skip("gcc is missing: apt-get install gcc")
    with knobs.cache.scope():
        knobs.cache.dir = str(CACHE / "triton")
        yield


@pytest.fixture(scope="session")
def emulator(ptx_cache):
    """PTX_CAPABILITY=80 compiles for another GPU."""
    from tests.ptx.emulator import Emulator

    torch.set_num_threads(1)
    return Emulator(int(os.environ.get("PTX_CAPABILITY", "90")))
