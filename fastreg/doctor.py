"""``fastreg doctor``: what is installed and found here, and for each missing thing the line that gets it."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Iterator
from typing import NamedTuple

from fastreg.environment import installed
from fastreg.errors import InputError, extra
from fastreg.version import __version__

FFCV_SYSTEM = "apt-get install libopencv-dev libturbojpeg0-dev pkg-config g++"


class Finding(NamedTuple):
    """One line of the report; ``mend`` is the command that gets a missing thing, empty when it is there."""

    what: str
    found: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at Python, torch, triton, the GPUs, the loaders, the data sets and the frost photographs."""
    return [*_engine(), *_extras(), *_data()]


def _engine() -> Iterator[Finding]:
    import torch

    yield Finding("fastreg", __version__)
    yield Finding("Python", platform.python_version())
    yield Finding("torch", f"{torch.__version__} (CUDA {torch.version.cuda or 'none: CPU build'})")
    triton = installed("triton")["triton"]
    yield Finding("triton", triton or "missing", "" if triton else "pip install 'triton>=3.6'")
    if not torch.cuda.is_available():
        yield Finding(
            "GPU", "none: fastreg runs its CPU reference", "install an NVIDIA driver and a CUDA build of torch"
        )
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        yield Finding(
            f"GPU {i}", f"{device.name}, sm_{device.major}{device.minor}, {device.total_memory / 2**30:.0f} GiB"
        )


def _extras() -> Iterator[Finding]:
    import torch

    dali = extra("dali-cuda12" if (torch.version.cuda or "13").startswith("12") else "dali")
    rows = (
        ("DALI", "nvidia.dali", ("nvidia-dali-cuda130", "nvidia-dali-cuda120"), dali),
        ("FFCV", "ffcv", ("ffcv",), f"{FFCV_SYSTEM} && {extra('ffcv')}"),
        ("sample photographs", "skimage", ("scikit-image",), extra("sample")),
        ("timm", "timm", ("timm",), extra("timm")),
        ("torchvision", "torchvision", ("torchvision",), extra("peers")),
        ("TensorBoard", "tensorboard", ("tensorboard",), extra("tensorboard")),
    )
    for what, module, packages, mend in rows:
        version = next((v for v in installed(*packages).values() if v), None)
        if version is None or not _importable(module):
            yield Finding(what, "missing", mend)
        elif module in ("timm", "torchvision") and (why := _refuses(module)):
            fitting = "install the torchvision that is built for this torch, from the same index as torch"
            yield Finding(what, f"{version}, which cannot be imported ({why})", fitting)
        else:
            yield Finding(what, version)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _refuses(module: str) -> str:
    """Why a package that is there cannot be imported; empty when it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # RuntimeError beside another torch, OSError without a library ...
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _data() -> Iterator[Finding]:
    from fastreg.pipelines.datasets import DATASETS, open_dataset
    from fastreg.pipelines.frost import load_frost

    for name, spec in DATASETS.items():
        if name == "folder":
            continue
        try:
            train, val = open_dataset(name, "train"), open_dataset(name, "val")
        except InputError as error:
            mend = f"fastreg data sample {name}" if spec.sample else f"fastreg data fetch {name}"
            yield Finding(name, "missing" if "no " in str(error)[:4] else f"unusable: {error}", mend)
            continue
        kind = " (sample)" if train.is_sample else ""
        yield Finding(name, f"{train.root}{kind}: {len(train):,} + {len(val):,} images, {len(train.classes)} classes")
    try:
        yield Finding("frost photographs", f"{len(load_frost())} found")
    except InputError:
        yield Finding("frost photographs", "missing", "fastreg data fetch frost")
