"""Versions, hardware and commit that a result depends on."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Date, command, versions, hardware and commit of this process, as plain values by name."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["fastreg", *sys.argv[1:]]),
        "python": platform.python_version(),
        "packages": installed("fastreg", "torch", "triton", "numpy", "pillow", "nvidia-dali-cuda130", "ffcv"),
        "commit": _quietly(lambda: _git("rev-parse", "HEAD")),
        "modified": _quietly(lambda: bool(_git("status", "--porcelain"))),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "gpu_count": torch.cuda.device_count(),
        "cuda": torch.version.cuda if cuda else None,
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
    }


def available_cpus() -> int:
    """Number of CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def granted_cpus(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Number of CPUs whose time this process may use: :func:`available_cpus`, or a container's smaller quota.

    Args:
        root: where the control groups of Linux are mounted.
        own: the file that names the groups of this process.
    """
    try:
        groups = [line.split(":", 2)[1:] for line in own.read_text().splitlines()]
    except OSError:
        groups = []
    quotas: list[float] = [available_cpus()]
    for controllers, path in groups:
        if "cpu" in controllers.split(",") or not controllers:  # version 1, version 2
            mount = root / "cpu" if controllers else root
            quotas += [_quota(folder) for folder in (mount, mount / path.lstrip("/"))]
    return max(math.ceil(min(quotas)), 1)


def _quota(folder: Path) -> float:
    """CPUs that a control group grants; infinite if it has no quota."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{word}_us").read_text().strip() for word in ("quota", "period"))
        return float(quota) / float(period) if quota not in ("max", "-1") else math.inf
    except (OSError, ValueError):
        return math.inf


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The instructions with which this CPU multiplies bf16: "amx_bf16", "avx512_bf16", "bf16" (Arm), or empty.

    Args:
        cpuinfo: the file in which Linux lists the flags of the CPU.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    flags = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    return next((name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in flags), "")


def installed(*packages: str) -> dict[str, str | None]:
    """Versions by package; None if it is not installed. fastreg's own version is known in a checkout too.

    Args:
        packages: names of distributions.
    """
    from fastreg.version import DISTRIBUTION, __version__

    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(DISTRIBUTION if package == "fastreg" else package)
        except PackageNotFoundError:
            found[package] = __version__ if package == "fastreg" else None
    return found


def _git(*words: str) -> str:
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()


def _quietly(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (OSError, subprocess.SubprocessError):
        return None  # not a checkout, or no git
