"""From bytes on disk to a Batch: data sets, sources, order, decoders. Exports are lazy; see README.md."""

from __future__ import annotations

import importlib

_EXPORTS = {
    "DATASETS": "datasets",
    "open_dataset": "datasets",
    "Dataset": "source",
    "Source": "source",
    "check_fingerprint": "source",
    "Order": "order",
    "LOADERS": "loader_table",
    "LoaderSpec": "loader_table",
    "Loader": "loader",
    "make_loader": "loader",
    "write_sample": "sample",
    "write_beton": "prepare",
    "fetch_files": "fetch",
    "verify": "verify_data",
    "info": "verify_data",
    "load_frost": "frost",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"fastreg.pipelines.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'fastreg.pipelines' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
