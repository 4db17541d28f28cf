"""guard.cpp, which gives fake CUDA tensors autograd and indexing in a CPU build of PyTorch."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("guard.cpp")


def unavailable() -> str:
    """The reason why a GPU cannot be simulated; empty if it can."""
    if torch.version.cuda is not None:
        return "this PyTorch is a CUDA build, whose own device guard needs a GPU: tests/gpu runs there"
    if shutil.which("g++") is None:
        return "g++ is missing, which builds the device guard of the simulated GPU"
    return ""


@cache
def load() -> ctypes.CDLL:
    """Build guard.cpp (once per version, in seconds) and load it, which adds the row of device guards."""
    digest = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    built = Path(tempfile.gettempdir()) / f"fastreg-simulated-gpu-{os.getuid()}-{digest}.so"
    if not built.is_file():
        here = Path(torch.__file__).parent
        part = built.with_suffix(f".{os.getpid()}")
        options = ["-shared", "-fPIC", "-std=c++20", f"-I{here}/include", f"-L{here}/lib", "-ltorch_cpu", "-lc10"]
        subprocess.run(["g++", str(SOURCE), "-o", str(part), *options], check=True, capture_output=True)
        part.replace(built)
    return ctypes.CDLL(str(built))
