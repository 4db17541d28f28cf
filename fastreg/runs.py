"""Run folders: ``runs/<name>/`` with config.json, environment.json, log.jsonl, log.csv, epochs.csv, last.pt, best.pt.

Every file is written to a temporary name, synced and renamed, so that a kill or a full disk at any moment leaves
the previous file whole. Logs are appended; what a killed run wrote past its checkpoint is dropped on resume.
"""

from __future__ import annotations

import errno
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

from fastreg.errors import InputError, RunError
from fastreg.files import atomic_write, replacing

FORMAT = "fastreg-checkpoint-1"
STEP_COLUMNS = ("step", "epoch", "loss", "lr", "images_per_second", "data_wait")
EPOCH_COLUMNS = ("epoch", "step", "train_loss", "val_loss", "val_top1_error", "ema_val_loss", "ema_val_top1_error")


def save_checkpoint(path: Path | str, state: dict[str, Any]) -> None:
    """Save tensors and plain values (readable with ``weights_only=True``) as ``path``, atomically."""
    import torch

    with replacing(path) as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # of torch's writer, which hides what the file's own write said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise OSError(errno.EIO, f"writing the checkpoint failed ({str(error).splitlines()[0]})") from error


def load_checkpoint(path: Path | str, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint written by :func:`save_checkpoint`; anything else is an InputError that says what it is."""
    state = load_tensors(path, device)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(
            f"{path} is not a fastreg checkpoint; a plain state dict is evaluated with --weights {path} --model NAME."
        )
    return state


def load_tensors(path: Path | str, device: str = "cpu") -> Any:
    """``torch.load(weights_only=True)`` with its many failures turned into one sentence, and checksums looked at."""
    import torch

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}: give the path of a .pt file, or of a run folder that holds one.")
    if damaged(path):
        raise InputError(f"{path} is damaged (cut off, or a checksum does not hold): put back a copy of it.")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many types for bad files
        pickled = re.search(r"GLOBAL (\S+)", str(error))  # what torch refuses to import
        if pickled:
            cause = f"it holds Python objects, such as {pickled[1]}: save model.state_dict() instead"
        else:
            cause = "torch.save did not write it, or it is cut off"
        raise InputError(f"{path} is not a checkpoint that can be read safely ({cause}).") from error


def damaged(path: Path) -> bool:
    """Whether a file that begins as a zip archive, as torch writes them, is no whole one."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, OSError, EOFError):
        return True


def checkpoint_path(path: Path | str) -> Path:
    """The checkpoint that a path means: a file itself, or a run folder's best.pt, else its last.pt."""
    path = Path(path)
    if path.is_dir():
        for name in ("best.pt", "last.pt"):
            if (path / name).is_file():
                return path / name
        raise InputError(f"{path} holds no best.pt or last.pt: it is not a run folder, or its run saved nothing yet.")
    return path


def newest(root: Path | str = "runs") -> Path:
    """The run folder under ``root`` whose checkpoint was written last."""
    saved = [path for path in Path(root).glob("*/*.pt") if path.name in ("last.pt", "best.pt")]
    saved = [path for path in saved if (path.parent / "config.json").is_file()]  # leaves out a trained GAN
    if not saved:
        raise InputError(f"no run with a checkpoint under {root}/: train one (fastreg train imagenet) or name a file.")
    return max(saved, key=lambda path: path.stat().st_mtime).parent


def judged(row: dict[str, Any]) -> float:
    """The top-1 error by which an epoch is judged: that of the averaged weights where the run keeps them."""
    return row.get("ema_val_top1_error", row["val_top1_error"])


class Log:
    """log.jsonl of one run, and its steps and epochs as log.csv and epochs.csv.

    Rows are appended; :meth:`truncate` drops those past a checkpoint.
    """

    def __init__(self, folder: Path):
        self.jsonl = folder / "log.jsonl"
        self.tables = {"step": (folder / "log.csv", STEP_COLUMNS), "epoch": (folder / "epochs.csv", EPOCH_COLUMNS)}

    def truncate(self, position: int, epochs: int) -> None:
        """Keep the rows of steps up to ``position`` and of the first ``epochs``; a row cut off by a kill goes too."""
        bounds = {"step": ("position", position), "epoch": ("epoch", epochs - 1)}
        rows = [(row, *bounds[row["kind"]]) for row in read_rows(self.jsonl)]
        kept = [row for row, key, last in rows if row[key] <= last]
        atomic_write(self.jsonl, "".join(json.dumps(row) + "\n" for row in kept))
        for kind, (path, columns) in self.tables.items():
            own = [row for row in kept if row["kind"] == kind]
            atomic_write(path, ",".join(columns) + "\n" + _csv(own, columns))

    def add(self, kind: str, rows: list[dict[str, Any]]) -> None:
        """Append rows of ``kind`` step or epoch."""
        path, columns = self.tables[kind]
        self._append(self.jsonl, "".join(json.dumps({"kind": kind, **row}) + "\n" for row in rows))
        self._append(path, _csv(rows, columns))

    def _append(self, path: Path, text: str) -> None:
        try:
            with open(path, "a") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}; the last checkpoint is intact.") from error


def _csv(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    return "".join(",".join(str(row.get(column, "")) for column in columns) + "\n" for row in rows)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a log.jsonl; a last line cut off by a kill is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows
