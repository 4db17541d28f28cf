"""``fastreg doctor``: the installed packages and data sets, and for each missing one the command that installs it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastreg.environment import bf16_instructions, installed
from fastreg.errors import InputError, extra
from fastreg.pipelines.loader_table import LOADERS
from fastreg.version import DISTRIBUTION, __version__


class Finding(NamedTuple):
    """One line of the report; ``mend`` is the command that installs a missing item; empty for an item that works."""

    what: str
    found: str
    mend: str = ""


def examine() -> list[Finding]:
    """Check Python, torch, Triton, the GPUs, the loaders, the data sets and the frost images.

    Returns:
        One finding per item, in the order in which ``fastreg doctor`` prints them.
    """
    return [*_package(), *_engine(), *_extras(), *_data()]


def _package() -> Iterator[Finding]:
    root = Path(__file__).resolve().parent.parent
    checkout = (root / "pyproject.toml").is_file()
    yield Finding("fastreg", f"{__version__} ({f'checkout at {root}' if checkout else f'distribution {DISTRIBUTION}'})")
    try:
        other = importlib.metadata.distribution("fastreg")
    except importlib.metadata.PackageNotFoundError:
        return
    if Path(str(other.locate_file(""))).resolve() != root or not checkout:  # a checkout's old build files are harmless
        mend = f"pip uninstall fastreg, then install {DISTRIBUTION} again"
        yield Finding("other fastreg", f"{other.version}: another distribution with the same import name", mend)


def _engine() -> Iterator[Finding]:
    import torch

    from fastreg.kernels.dispatch import numba_error

    yield Finding("Python", platform.python_version())
    yield Finding("torch", f"{torch.__version__} (CUDA {torch.version.cuda or 'none: CPU build'})")
    triton = installed("triton")["triton"]
    yield Finding("triton", triton or "missing", "" if triton else "pip install 'triton>=3.6'")
    error = numba_error()
    found = f"unusable ({error}): on a CPU the slow references run" if error else installed("numba")["numba"]
    yield Finding("numba", found or "unknown version", extra("cpu") if error else "")
    bf16 = bf16_instructions()
    yield Finding("bf16 on the CPU", f"{bf16}: try --precision bf16" if bf16 else "no instructions for it")
    if not torch.cuda.is_available():
        yield Finding("GPU", "none: fastreg runs on the CPU", "install an NVIDIA driver and a CUDA build of torch")
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        yield Finding(
            f"GPU {i}", f"{device.name}, sm_{device.major}{device.minor}, {device.total_memory / 2**30:.0f} GiB"
        )


def _extras() -> Iterator[Finding]:
    import torch

    loaders = [
        (spec.title, spec.package, spec.distributions, spec.install_command(torch.version.cuda))
        for spec in LOADERS.values()
        if spec.package
    ]
    rows = (
        *loaders,
        ("sample images", "skimage", ("scikit-image",), extra("sample")),
        ("timm", "timm", ("timm",), extra("timm")),
        ("torchvision", "torchvision", ("torchvision",), extra("peers")),
        ("TensorBoard", "tensorboard", ("tensorboard",), extra("tensorboard")),
    )
    for what, module, packages, mend in rows:
        version = next((v for v in installed(*packages).values() if v), None)
        if version is None or not _importable(module):
            yield Finding(what, "missing", mend)
        elif module in ("timm", "torchvision") and (why := _import_error(module)):
            fitting = "install the torchvision that is built for this torch, from the same index as torch"
            yield Finding(what, f"{version}, which cannot be imported ({why})", fitting)
        else:
            yield Finding(what, version)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _import_error(module: str) -> str:
    """The first line of the error that importing an installed package raises; empty without one."""
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
        yield Finding("frost images", f"{len(load_frost())} found")
    except InputError:
        yield Finding("frost images", "missing", "fastreg data fetch frost")
