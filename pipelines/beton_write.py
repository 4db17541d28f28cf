"""Writing a ``.beton`` file sample by sample: resumable through a journal, verified, and finished by one rename."""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastreg.errors import InputError, RunError
from fastreg.files import InUseError
from fastreg.pipelines.beton import ABOUT, ALLOCATION, CHECKSUM, FIELD, HEADER, INT, MAGIC, RAW, RGB, SAMPLE, VERSION

PAGE = 8 << 20  # FFCV's default page size in bytes; doubled until the largest sample fits
MAX_SIDE = 26_754  # side in pixels of the largest square that fits into the largest page, 2 GiB
# One row of the journal, for one written sample; ``source`` is its index in the source.
_RECORD = np.dtype(
    [
        ("source", "<u8"),
        ("mode", "<u1"),
        ("width", "<u2"),
        ("height", "<u2"),
        ("label", "<i8"),
        ("pointer", "<u8"),
        ("size", "<u8"),
        ("crc", "<u4"),
    ]
)


class Encoded(NamedTuple):
    """One sample as it is stored: ``mode`` JPEG or RAW, sides in pixels."""

    mode: int
    width: int
    height: int
    payload: bytes


class BetonWriter:
    """Writes ``X.beton.part`` and, beside it, ``X.beton.part.journal``, the list of samples flushed to disk.

    A writer with the same settings continues after the last sample that the journal lists and the data contain.

    Args:
        path: The finished file.
        settings: JSON object of everything that determines the content.
        capacity: Largest number of samples.
        largest: Bytes of the largest sample.

    Raises:
        InputError: Another process writes the file, or it was begun with other settings.
        RunError: The folder cannot be written.
    """

    def __init__(self, path: Path, settings: dict, capacity: int, largest: int):
        self.path, self.settings = path, settings
        self.page_size = PAGE
        while self.page_size < largest:
            self.page_size *= 2
        self._start = _aligned(HEADER.itemsize + 2 * FIELD.itemsize + capacity * SAMPLE.itemsize, self.page_size)
        self._partial = path.with_name(path.name + ".part")
        self._log = path.with_name(path.name + ".part.journal")
        self._waiting: list[tuple] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = open(self._partial, "r+b" if self._partial.exists() else "w+b")  # noqa: SIM115
            self._journal = open(self._log, "a+b")  # noqa: SIM115
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
                f"{path} is being written by another process: wait for it, or set `to` to another file."
            ) from None
        except OSError as error:
            raise RunError(
                f"cannot write to {path.parent}: {error.strerror}; set `to` to a file in a writable folder."
            ) from None
        self._resume()

    def _resume(self) -> None:
        first = json.dumps({**self.settings, "page_size": self.page_size, "start": self._start}).encode() + b"\n"
        self._journal.seek(0)
        header = self._journal.readline() if self._data.seek(0, os.SEEK_END) else b""  # no data: no journal
        if header and header != first and header.endswith(b"\n"):
            raise InputError(
                f"{self._partial} was begun with other settings or data: remove it and its journal, or use those."
            )
        records = np.frombuffer(b"", _RECORD)
        if header == first:
            rest = self._journal.read()
            records = np.frombuffer(rest[: len(rest) - len(rest) % _RECORD.itemsize], _RECORD)
        else:
            header = first
        records = records[: self._sound(records)]
        self.records = list(records)
        self._journal.truncate(0)
        self._journal.write(header + records.tobytes())
        self._journal.flush()
        self._end = int(records[-1]["pointer"] + records[-1]["size"]) if len(records) else self._start
        self._data.truncate(self._end)
        self._data.seek(self._end)

    def _sound(self, records: np.ndarray) -> int:
        """Number of leading records whose checksums match the data."""
        length = self._data.seek(0, os.SEEK_END)
        for count, record in enumerate(records):
            pointer, size = int(record["pointer"]), int(record["size"])
            if pointer + size > length:
                return count
            self._data.seek(pointer)
            if zlib.crc32(self._data.read(size)) != record["crc"]:
                return count
        return len(records)

    def check(self, sample: Encoded) -> None:
        """Raise ValueError for a sample that the format cannot hold."""
        if max(sample.width, sample.height) > 0xFFFF:
            raise ValueError(
                f"it is {sample.width} x {sample.height} pixels, and a side has 65,535 at most: set `max_res`"
            )
        if len(sample.payload) > self.page_size:
            raise ValueError(
                f"it takes {len(sample.payload):,} bytes, more than a page of {self.page_size:,}: lower `max_res`"
            )

    @property
    def next(self) -> int:
        """Index of the first sample to write."""
        return int(self.records[-1]["source"]) + 1 if self.records else 0

    def add(self, source: int, label: int, sample: Encoded) -> None:
        """Append a sample; FFCV requires that it does not cross a page."""
        size = len(sample.payload)
        pointer = self._end
        if pointer // self.page_size != (pointer + size - 1) // self.page_size:
            pointer = _aligned(pointer, self.page_size)
            self.flush()
        self._data.seek(pointer)
        self._data.write(sample.payload)
        crc = zlib.crc32(sample.payload)
        row = (source, sample.mode, sample.width, sample.height, label, pointer, size, crc)
        self._waiting.append(row)
        self._end = pointer + size

    def flush(self) -> None:
        """Write added samples to the disk, then list them in the journal."""
        self._data.flush()
        os.fdatasync(self._data.fileno())
        done = np.array(self._waiting, _RECORD)
        self._journal.write(done.tobytes())
        self._journal.flush()
        self.records += list(done)
        self._waiting = []

    def finish(self, about: dict) -> None:
        """Write the tables, verify every sample's checksum, and rename the file.

        Args:
            about: The note to keep in the file.

        Raises:
            RunError: A checksum differs; or there is no sample, in which case no file is left.
        """
        self.flush()
        records = np.array(self.records, _RECORD)
        if not len(records):
            self._partial.unlink()
            self._log.unlink()
            raise RunError(
                f"there is no image to write to {self.path}: all are broken, or there are none. Of a shard: take fewer."
            )
        note = json.dumps({**about, "checksums": "crc32"}).encode()
        checksums = records["crc"].astype(CHECKSUM).tobytes()
        pointer = _aligned(self._end, 16)
        header = np.zeros(1, HEADER)
        allocation = pointer + len(note) + len(checksums)
        header[0] = (VERSION, 2, self.page_size, len(records), allocation)
        fields = np.zeros(2, FIELD)
        for row, (kind, field) in zip(fields, ((RGB, b"image"), (INT, b"label"))):
            row["type"] = kind
            row["name"][: len(field)] = list(field)
        fields[1]["arguments"][: ABOUT.itemsize] = np.array([(MAGIC, pointer, len(note))], ABOUT).view(np.uint8)
        rows = np.zeros(len(records), SAMPLE)
        for name in ("mode", "width", "height", "pointer"):
            rows["image"][name] = records[name]
        rows["label"] = records["label"]
        table = np.zeros(len(records), ALLOCATION)
        table["sample"], table["pointer"], table["size"] = np.arange(len(records)), records["pointer"], records["size"]
        self._data.seek(0)
        self._data.write(header.tobytes() + fields.tobytes() + rows.tobytes())
        self._data.seek(pointer)
        self._data.write(note + checksums + table.tobytes())
        self._data.flush()
        os.fsync(self._data.fileno())
        sound = self._sound(records)
        if sound < len(records):
            raise RunError(
                f"{self._partial} differs from what was written (sample {int(records[sound]['source'])}): the same "
                f"command rewrites it from there; if this happens again, check the disk."
            )
        os.replace(self._partial, self.path)
        self._log.unlink()

    def close(self) -> None:
        """Close the files; the same settings continue from there."""
        self._data.close()
        self._journal.close()


def _aligned(offset: int, to: int) -> int:
    return -(-offset // to) * to


def raw_bytes(array: np.ndarray) -> Encoded:
    """The raw form of a uint8 [H, W, 3] array."""
    return Encoded(RAW, array.shape[1], array.shape[0], np.ascontiguousarray(array).tobytes())
