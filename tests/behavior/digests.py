"""Digests of arrays and nested values, deterministic test images, and a description of this machine."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LENGTH = 32  # hexadecimal digits of a sha256 that are kept
PACKAGES = ("torch", "numpy", "pillow", "opencv-python-headless", "simplejpeg")


class Case:
    """Results of one case, in two dictionaries.

    portable: settings, names, integers and uint8 images, the same on every CPU.
    local: floating-point results, the same on one CPU model with one version of torch.
    """

    def __init__(self) -> None:
        self.portable: dict[str, Any] = {}
        self.local: dict[str, Any] = {}

    def add(self, key: str, tensors: Mapping[str, Any]) -> None:
        """Adds one digest of all integer tensors and one of all floating-point tensors under ``key``."""
        found = {name: torch.as_tensor(value) for name, value in tensors.items() if value is not None}
        floats = {name: value for name, value in found.items() if value.is_floating_point()}
        integers = {name: value for name, value in found.items() if name not in floats}
        if integers:
            self.portable[key] = digest(integers)
        if floats:
            self.local[key] = digest(floats)


def digest(value: Any) -> str:
    """sha256 of a value: tensors and arrays by dtype, shape and bytes; mappings sorted by key; the rest as JSON."""
    found = hashlib.sha256()
    _update(found, value)
    return found.hexdigest()[:LENGTH]


def _update(found: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            found.update(f"{key}:".encode())
            _update(found, value[key])
    elif isinstance(value, list | tuple):
        for one in value:
            found.update(b"-")
            _update(found, one)
    elif isinstance(value, Tensor | np.ndarray):
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        found.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, bytes):
        found.update(value)
    else:
        found.update(json.dumps(value).encode())


def plain(value: Any) -> Any:
    """The value as plain JSON: mappings and lists of numbers, text and None."""
    return json.loads(json.dumps(value, default=list))


def file_digests(root: Path) -> dict[str, str]:
    """Digest of each file's bytes below ``root`` by relative path; names that begin with a dot are left out."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(root)): digest(path.read_bytes()) for path in files}


def random_bytes(name: str, count: int) -> np.ndarray:
    """uint8 [count] from SHAKE-256, the same with every version of every package."""
    return np.frombuffer(hashlib.shake_256(name.encode()).digest(count), np.uint8)


def synthetic_images(name: str, count: int, height: int, width: int | None = None) -> np.ndarray:
    """uint8 [count, height, width, 3]: blocks of one color with fine noise, black and white areas included."""
    width = width or height
    blocks = random_bytes(f"blocks {name}", count * 64 * 3).reshape(count, 8, 8, 3).astype(np.int64)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    noise = random_bytes(f"noise {name}", count * height * width * 3).reshape(count, height, width, 3)
    mixed = blocks[:, rows][:, :, columns] * 3 // 2 - 64 + (noise >> 3)
    return mixed.clip(0, 255).astype(np.uint8)


def machine() -> dict[str, Any]:
    """Everything that floating-point results on the CPU depend on."""
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = {line.partition(":")[2].strip() for line in names if line.startswith(("model name", "model\t"))}
    return {
        "cpu": sorted(models) or [platform.processor()],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
