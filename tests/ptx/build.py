"""Translated kernels built with gcc, and the structures that the C code shares with Python."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.ptx.counts import CLASSES

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("PTX_CACHE", Path(tempfile.gettempdir()) / "fastreg-ptx"))
GCC = shutil.which("gcc")
# The order of the enumeration in runtime.h.
FAULTS = (
    *("OOB_READ", "OOB_WRITE", "MISALIGNED", "SHARED_UNINIT", "SHARED_OOB", "SHARED_RAW", "SHARED_WAR", "SHARED_WW"),
    *("SHARED_LANES", "CTA_WW", "CTA_RAW", "CTA_WAR", "THREAD_WW", "DIV_ZERO", "BAR_DIVERGED", "LANES_MISSING"),
    *("CVT_RANGE", "ENDLESS"),
)
HARMLESS = {"CVT_RANGE"}  # conversions saturate, which kernels rely on
_FLAGS = ("-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-math-errno", "-fwrapv", "-w")


class Range(ctypes.Structure):
    """Bytes of a tensor. ``owner`` and ``reader``: for each byte the CTA and thread that wrote or read it."""

    _fields_ = [
        ("lo", ctypes.c_uint64),
        ("hi", ctypes.c_uint64),
        ("owner", ctypes.c_void_p),
        ("reader", ctypes.c_void_p),
        ("wrote", ctypes.c_uint64),
        ("read", ctypes.c_uint64),
    ]


class Fault(ctypes.Structure):
    """Number of faults of a kind, and the first of them."""

    _fields_ = [
        ("count", ctypes.c_uint64),
        ("line", ctypes.c_uint32),
        ("cta", ctypes.c_uint32),
        ("tid", ctypes.c_uint32),
        ("addr", ctypes.c_uint64),
    ]


class Job(ctypes.Structure):
    """A launch."""

    _fields_ = [
        ("params", ctypes.c_uint64),
        ("grid", ctypes.c_uint32 * 3),
        ("warps", ctypes.c_uint32),
        ("smem", ctypes.c_uint32),
        ("nranges", ctypes.c_uint32),
        ("ranges", ctypes.POINTER(Range)),
        ("poison", ctypes.c_uint32),
        ("reverse", ctypes.c_uint32),
        ("eps", ctypes.c_int32),
        ("contract", ctypes.c_int32),
        ("nonly", ctypes.c_uint64),
        ("only", ctypes.c_void_p),
        ("fault", Fault * len(FAULTS)),
        ("approx", ctypes.c_uint64),
        ("contracted", ctypes.c_uint64),
        ("counting", ctypes.c_uint32),
        ("issued", ctypes.c_uint64 * len(CLASSES)),
        ("accesses", ctypes.c_uint64 * 4),
        ("parts", ctypes.c_uint64 * 4),
        ("touched", ctypes.c_uint64),
    ]


def build(source: str, level: int):
    """The C function ``launch`` of a translated kernel, optimized to ``level``. The shared library is cached."""
    headers = "".join((HERE / name).read_text() for name in ("runtime.h", "arithmetic.h", "driver.h"))
    name = hashlib.sha256(f"{level}{source}{headers}".encode()).hexdigest()[:24]
    library = CACHE / f"{name}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        text, made = (CACHE / f"{name}.{os.getpid()}.{suffix}" for suffix in ("c", "so"))
        text.write_text(source)
        command = [str(GCC), f"-O{level}", *_FLAGS, "-shared", "-fPIC", f"-I{HERE}", "-o", made, text, "-lm"]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"{text}: {run.stderr[:2000]}")
        os.replace(made, library)
        text.unlink()
    return ctypes.CDLL(str(library)).launch
