"""log.jsonl of a run and its tables log.csv and epochs.csv. Rows are appended; a resume cuts the end off.

Nothing here reads a whole log, except for a table that is missing.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastreg.errors import RunError
from fastreg.files import replacing

STEP_COLUMNS = ("step", "epoch", "loss", "lr", "images_per_second", "data_wait")
EPOCH_COLUMNS: tuple[str, ...] = ("epoch", "step", "train_loss", "val_loss", "val_top1_error", "ema_val_loss")
EPOCH_COLUMNS += ("ema_val_top1_error", "val_top5_error", "ema_val_top5_error")
BLOCK = 1 << 16  # bytes that are read at once from the end of a file
MAX_LINE = 1 << 24  # bytes; a longer line is damage


class Log:
    """log.jsonl of a run, with its steps and epochs also as log.csv and epochs.csv.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.jsonl = folder / "log.jsonl"
        self.tables = {"step": (folder / "log.csv", STEP_COLUMNS), "epoch": (folder / "epochs.csv", EPOCH_COLUMNS)}

    def truncate(self, position: int, epochs: int, since: int = 0) -> list[dict[str, Any]]:
        """Keep rows up to image ``position`` and epoch ``epochs``; drop a row cut off by a kill.

        Args:
            position: images trained.
            epochs: epochs trained.
            since: images; rows of later steps are returned.

        Returns:
            The kept rows of steps that are after ``since`` or in an epoch that is not finished, in order.

        Raises:
            RunError: a file cannot be written.
        """
        bounds = {"step": ("position", position), "epoch": ("epoch", epochs - 1)}
        end, last_step, recent = 0, 0, []
        for offset, line in lines_from_end(self.jsonl):
            row = parse_row(line)
            key, last = bounds.get(row.get("kind", ""), ("", -1))
            if not is_number(row.get(key)) or row[key] > last:
                continue
            end = max(end, offset + len(line))
            if row["kind"] == "step":
                last_step = last_step or row.get("step", 0)
                if row["position"] <= since and row.get("epoch", 0) < epochs:
                    break
                recent.append(row)
        try:
            _cut(self.jsonl, end)
            for kind, last in (("step", last_step), ("epoch", epochs - 1)):
                self._cut_table(kind, last)
        except OSError as error:
            raise RunError(f"cannot write {error.filename or self.jsonl}: {error.strerror}.") from error
        return recent[::-1]

    def _cut_table(self, kind: str, last: int) -> None:
        """Drop the rows whose first number is above ``last``; make a table that is missing or has other columns."""
        path, columns = self.tables[kind]
        head = (",".join(columns) + "\n").encode()
        if not path.is_file() or not _begins_with(path, head):
            with replacing(path) as file:
                file.write(head)
                for row in stream_rows(self.jsonl):
                    if row["kind"] == kind:
                        file.write(_csv([row], columns).encode())
            return
        end = len(head)
        for offset, line in lines_from_end(path):
            first = line.partition(b",")[0]
            if offset >= len(head) and line.endswith(b"\n") and first.isdigit() and int(first) <= last:
                end = offset + len(line)
                break
        _cut(path, end)

    def add(self, kind: str, rows: list[dict[str, Any]]) -> None:
        """Append rows of ``kind`` "step" or "epoch". Raises RunError if the files cannot be written."""
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


def _begins_with(path: Path, head: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(head)) == head


def _cut(path: Path, end: int) -> None:
    with open(path, "ab") as file:
        file.truncate(end)
        os.fsync(file.fileno())


def _csv(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    return "".join(",".join(str(row.get(column, "")) for column in columns) + "\n" for row in rows)


def lines_from_end(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, line with its line feed) of a file, the last line first; none if the file is missing."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        at = file.seek(0, os.SEEK_END)
        rest = b""
        while at and len(rest) < MAX_LINE:
            start = max(0, at - BLOCK)
            file.seek(start)
            rest, at = file.read(at - start) + rest, start
            lines = rest.splitlines(keepends=True) if b"\n" in rest else []
            for line in reversed(lines[1:] if at else lines):
                rest = rest[: len(rest) - len(line)]
                yield at + len(rest), line
        if rest:
            yield at, rest


def parse_row(line: bytes | str) -> dict[str, Any]:
    """A row of log.jsonl; empty for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) and isinstance(row.get("kind"), str) else {}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def stream_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log.jsonl, one at a time; lines that are no rows are left out."""
    if path.is_file():
        with open(path, "rb") as file:
            for line in iter(lambda: file.readline(MAX_LINE), b""):
                if row := parse_row(line):
                    yield row


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log.jsonl, without a last line cut off by a kill; none if the file is missing."""
    return list(stream_rows(path))


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's epochs, from epochs.csv; without it from log.jsonl. Damaged rows are left out.

    Args:
        folder: the run folder.

    Returns:
        Rows with ``kind`` "epoch", and as numbers ``epoch``, ``step`` and those of ``EPOCH_COLUMNS`` that there are.
    """
    path = folder / "epochs.csv"
    rows: Iterable[dict[str, Any]] = _table_rows(path) if path.is_file() else stream_rows(folder / "log.jsonl")
    found = []
    for row in rows:
        kept = {key: row[key] for key in EPOCH_COLUMNS if is_number(row.get(key))}
        whole = type(kept.get("epoch")) is int and kept["epoch"] >= 0 and "val_top1_error" in kept
        if row.get("kind", "epoch") == "epoch" and whole:
            found.append({"kind": "epoch", **kept})
    return found


def _table_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(path, newline="", errors="replace") as file:
            for row in csv.DictReader(file):
                yield {key: _number(text) for key, text in row.items() if isinstance(key, str)}
    except (OSError, csv.Error):
        return


def _number(text: Any) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except (TypeError, ValueError):
            continue
    return None
