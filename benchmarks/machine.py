"""The machine of a record: device, versions and commit, and its clocks and load at the time."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from fastreg.environment import environment, installed

# datasheet memory bandwidth in GB/s by a word of the device's name; the first match counts
_BANDWIDTH = {"H200": 4800, "H100 NVL": 3938, "H100 PCIe": 2039, "H100": 3352, "B200": 8000, "A100": 2039, "L4": 300}
_PACKAGES = ("fastreg", "torch", "triton", "numpy", "pillow", "opencv-python-headless", "nvidia-dali-cuda130", "ffcv")
PEERS = ("timm", "torchvision", "kornia", "liger-kernel", "torchattacks", "imagecorruptions", "torchmetrics")


def describe(device: torch.device) -> dict[str, Any]:
    """The ``machine`` field of a record."""
    made = environment()
    found: dict[str, Any] = {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": made["python"],
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": made["commit"],
        "modified": made["modified"],
        "versions": installed(*_PACKAGES, *PEERS),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        bandwidth = next((gbs for word, gbs in _BANDWIDTH.items() if word in found["name"]), None)
        found |= {
            "cuda": torch.version.cuda,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "l2_bytes": properties.L2_cache_size,
            "memory_bytes": properties.total_memory,
            "datasheet_gbs": bandwidth,
        }
    found["slug"] = re.sub(r"[^a-z0-9]+", "-", f"{found['name']} {found['cores']} cores".lower()).strip("-")
    if device.type == "cuda":
        found["slug"] = re.sub(r"[^a-z0-9]+", "-", found["name"].lower()).strip("-")
    return found


def state(device: torch.device) -> dict[str, Any]:
    """Load average, and clocks, power and temperature as nvidia-smi reports them."""
    now: dict[str, Any] = {"load_average": [round(x, 2) for x in os.getloadavg()]}
    if device.type == "cuda":
        wanted = "clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu"
        command = ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader,nounits", "-i", str(device.index or 0)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            now |= dict(zip(wanted.split(","), done.stdout.strip().split(", ")))
        except (OSError, subprocess.SubprocessError):
            now["clocks"] = "nvidia-smi did not answer"
    return now


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return re.sub(r"\((R|TM)\)|CPU|Processor", "", found.group(1)).strip() if found else "CPU"
