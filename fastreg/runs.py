"""Run folders: ``runs/<name>/`` with config.json, environment.json, log.jsonl, log.csv, epochs.csv, last.pt, best.pt.

Every file is written to a temporary name, synced and renamed, so that a kill or a full disk at any moment leaves
the previous file whole. Logs are appended; a resume drops rows that a killed run wrote after its checkpoint.
"""

from __future__ import annotations

import errno
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastreg.errors import InputError
from fastreg.files import replacing
from fastreg.log_files import Log, read_epochs, read_rows

__all__ = ["Log", "read_epochs", "read_rows"]

FORMAT = "fastreg-checkpoint-1"


def save_checkpoint(path: Path | str, state: dict[str, Any]) -> None:
    """Save a checkpoint atomically.

    Args:
        path: the file.
        state: tensors and plain values, readable with ``weights_only=True``.

    Raises:
        RunError: the file cannot be written. A previous file stays whole.
    """
    import torch

    with replacing(path) as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # torch's writer hides the error of the file's own write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise OSError(errno.EIO, f"writing the checkpoint failed ({str(error).splitlines()[0]})") from error


def load_checkpoint(path: Path | str, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint that :func:`save_checkpoint` wrote.

    Args:
        path: the file.
        device: device of the tensors.

    Raises:
        InputError: the file is missing, damaged, or something else.
    """
    state = load_tensors(path, device)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(
            f"{path} is not a fastreg checkpoint: give a plain state dict as `weights`, with the name of its `model`."
        )
    return state


def load_tensors(path: Path | str, device: str = "cpu") -> Any:
    """Read a file of ``torch.save`` safely (``weights_only=True``), with its checksums verified.

    Raises:
        InputError: the file is missing, damaged, or contains Python objects.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}: give the path of a .pt file, or of a run folder that contains one.")
    if damaged(path):
        raise InputError(f"{path} is damaged (cut off, or a checksum does not match): put back a copy of it.")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many types for bad files
        pickled = re.search(r"GLOBAL (\S+)", str(error))  # the class that torch refuses to import
        if pickled:
            cause = f"it contains Python objects, such as {pickled[1]}: save model.state_dict() instead"
        else:
            cause = "torch.save did not write it, or it is cut off"
        raise InputError(f"{path} is not a checkpoint that can be read safely ({cause}).") from error


def damaged(path: Path) -> bool:
    """Whether a file that begins as a zip archive, as torch writes them, is incomplete or fails its checksums."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, OSError, EOFError):
        return True


def checkpoint_path(path: Path | str) -> Path:
    """The checkpoint of a path: the file itself, or a run folder's best.pt, else its last.pt.

    Raises:
        InputError: the folder contains no checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        for name in ("best.pt", "last.pt"):
            if (path / name).is_file():
                return path / name
        raise InputError(
            f"{path} contains no best.pt or last.pt: it is not a run folder, or its run has not saved a checkpoint yet."
        )
    return path


def newest(root: Path | str = "runs") -> Path:
    """The run folder under ``root`` whose checkpoint was written last.

    Raises:
        InputError: no run under ``root`` has a checkpoint.
    """
    saved = [path for path in Path(root).glob("*/*.pt") if path.name in ("last.pt", "best.pt")]
    saved = [path for path in saved if (path.parent / "config.json").is_file()]  # not a trained GAN
    if not saved:
        raise InputError(
            f"no run with a checkpoint under {root}/: give a run folder, or train one (fastreg train imagenet)."
        )
    return max(saved, key=lambda path: path.stat().st_mtime).parent


def stored_data_dir(settings: Mapping[str, Any]) -> str | None:
    """The data directory of a run, relative to the current folder or absolute.

    Args:
        settings: config.json of the run: ``data_dir`` as it was given, and its absolute path ``data_root``.

    Returns:
        ``data_dir`` if it still leads to the same data, else ``data_root``. None: the default of ``open_dataset``.

    Raises:
        InputError: neither exists.
    """
    given, absolute = settings.get("data_dir"), settings.get("data_root")
    moved = absolute is not None and _exists(absolute)  # the absolute path is needed from another folder only
    if given is None:
        name = str(settings.get("dataset"))
        usual = {os.path.abspath(Path(root) / name) for root in (os.environ.get("FASTREG_DATA", "data"), "data")}
        return absolute if moved and absolute not in usual else None
    if moved and os.path.abspath(given) != absolute:
        return absolute
    if _exists(given):
        return given
    where = f" ({absolute})" if absolute not in (None, given) else ""
    raise InputError(f"the run's own data folder {given}{where} does not exist: set `data_dir`.")


def _exists(location: str) -> bool:
    """Whether a path exists; True for addresses and patterns, which are checked when they are opened."""
    return "://" in location or bool(set(location) & set("*?[{")) or Path(location).exists()


def selection_error(row: dict[str, Any]) -> float:
    """The top-1 error in percent that selects best.pt: of the averaged weights if the run has them, else of the model.

    Args:
        row: an epoch's row of log.jsonl.
    """
    return row.get("ema_val_top1_error", row["val_top1_error"])
