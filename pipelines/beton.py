"""``.beton`` files (FFCV's format, version 2) without its library: the layout, and a Source over one file.

Little endian: header (24 bytes), one 1041-byte row per field, one aligned metadata row per sample, pages of
``page_size`` bytes (a sample never crosses a page), and last the allocation table (sample, pointer, size).
The format has no field for class names and checksums, so fastreg adds a note before the allocation table: class names
and settings as JSON, then the CRC-32 of every sample (uint32). Unused arguments of the label field point at the note,
which FFCV ignores.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.image import header
from fastreg.pipelines.source import MAX_CLASSES, Dataset, Source

VERSION = 2
INT, RGB = 1, 2  # field types
JPEG, RAW = 0, 1  # how an image is stored

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("fields", "<u2"),
        ("page_size", "<u4"),
        ("samples", "<u8"),
        ("allocation", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype([("type", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)], align=True)
_IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("pointer", "<u8")])
SAMPLE = np.dtype([("image", _IMAGE), ("label", "<i8")], align=True)
_SAMPLE_LABEL_FIRST = np.dtype([("label", "<i8"), ("image", _IMAGE)], align=True)
ALLOCATION = np.dtype([("sample", "<u8"), ("pointer", "<u8"), ("size", "<u8")])
ABOUT = np.dtype([("magic", "S8"), ("pointer", "<u8"), ("size", "<u8")])
CHECKSUM = np.dtype("<u4")
MAGIC = b"fastreg1"


class BetonSource(Source):
    """One split in one ``.beton`` file: an RGB image (JPEG or raw) and an integer label per sample.

    Attributes:
        about: fastreg's note in the file; empty for files that FFCV wrote.
        pages: int [N], the page that holds each sample.
        heights, widths: int64 [N], image sides in pixels.

    Raises:
        InputError: The file is cut short, of another version, has other fields, or notes another split.
    """

    def __init__(self, path: Path, name: str, split: str, spec: Dataset):
        self.path = path
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115  read until the source is deleted
            self._length = os.fstat(self._file.fileno()).st_size
            if not self._length:
                raise OSError("it is empty")
            self._table(0, 1, HEADER)
        except OSError as error:
            raise InputError(f"cannot open {path}: {error}; write it anew with `fastreg data prepare`.") from None
        header = self._table(0, 1, HEADER)[0]
        if header["version"] != VERSION:
            raise InputError(
                f"{path} is not a .beton file of version {VERSION} (its version is {header['version']}): "
                f"write it anew with `fastreg data prepare`."
            )
        fields = self._table(HEADER.itemsize, int(header["fields"]), FIELD)
        self.page_size, n = int(header["page_size"]), int(header["samples"])
        if self.page_size < 1:
            raise self._damaged()
        rows = self._table(HEADER.itemsize + fields.nbytes, n, self._row_type(fields))
        allocation = self._table(int(header["allocation"]), None, ALLOCATION)
        self.pointers, self._sizes = self._extents(rows["image"], allocation)
        self.pages = self.pointers // self.page_size
        self.modes = np.ascontiguousarray(rows["image"]["mode"])
        self.heights = np.ascontiguousarray(rows["image"]["height"]).astype(np.int64)
        self.widths = np.ascontiguousarray(rows["image"]["width"]).astype(np.int64)
        self.about, self._checksums = self._read_about(fields, n)
        if self.about.get("split", split) != split:
            raise InputError(
                f"{path} holds the {self.about['split']} split, not {split}: set `data_dir` to the folder that holds "
                f"train.beton and val.beton."
            )
        classes = self.about.get("classes") or self._numbers(rows["label"], spec)
        digest = hashlib.sha256(rows.tobytes() + self._sizes.tobytes()).hexdigest()[:12]
        counts = f"{n} images, {len(classes)} classes, {self._length} bytes, table {digest}"
        super().__init__(name, split, path, spec, rows["label"], classes, counts)
        self.is_sample = self.is_sample or bool(self.about.get("sample"))
        sides = set(zip(self.heights.tolist(), self.widths.tolist())) if n else set()
        if len(sides) == 1 and (self.modes == RAW).all() and 0 not in next(iter(sides)):
            (self.canvas,) = sides

    @property
    def form(self) -> str:
        return "beton" if self.canvas is None else "canvases"

    def _table(self, offset: int, count: int | None, dtype: np.dtype) -> np.ndarray:
        stop = self._length if count is None else offset + count * dtype.itemsize
        stop -= (stop - offset) % dtype.itemsize
        if offset > self._length or stop > self._length:
            raise self._damaged()
        return np.frombuffer(self._read(offset, stop - offset), dtype)

    def _numbers(self, labels: np.ndarray, spec: Dataset) -> list[str]:
        """Numbers as class names, for a file that stores no names."""
        most = int(labels.max(initial=0))
        if spec.classes is None and most >= MAX_CLASSES:
            raise InputError(f"{self.path} has label {most}, and labels are 0 to {MAX_CLASSES - 1:,}: write it anew.")
        return [str(label) for label in range(spec.classes or most + 1)]

    def _damaged(self) -> InputError:
        return InputError(f"{self.path} is cut short or damaged: write it anew with `fastreg data prepare`.")

    def _row_type(self, fields: np.ndarray) -> np.dtype:
        types = fields["type"].tolist()
        names = [bytes(name).rstrip(b"\0").decode("ascii", "replace") for name in fields["name"]]
        if types == [RGB, INT]:
            return SAMPLE
        if types == [INT, RGB]:
            return _SAMPLE_LABEL_FIRST
        raise InputError(
            f"{self.path} has the fields {', '.join(f'{n} (type {t})' for n, t in zip(names, types)) or 'none'}: "
            f"fastreg reads an RGB image (type {RGB}) and an integer label (type {INT}); write it anew."
        )

    def _extents(self, images: np.ndarray, allocation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(pointer, size) of every sample, from the allocation table."""
        if (images["pointer"] > self._length).any() or (allocation["size"] > self._length).any():
            raise self._damaged()  # unsigned: as int64 they might be negative
        pointers = images["pointer"].astype(np.int64)
        table = allocation[np.argsort(allocation["pointer"])]
        at = np.searchsorted(table["pointer"], images["pointer"])
        if len(pointers) and (at.max() >= len(table) or (table["pointer"][at] != images["pointer"]).any()):
            raise self._damaged()
        sizes = table["size"][at].astype(np.int64)
        raw = images["mode"] == RAW
        pixels = images["height"].astype(np.int64) * images["width"] * 3
        if (pointers + sizes > self._length).any() or (sizes[raw] != pixels[raw]).any():
            raise self._damaged()
        return pointers, sizes

    def _read_about(self, fields: np.ndarray, n: int) -> tuple[dict, np.ndarray | None]:
        """(fastreg's note, the checksum of every sample)."""
        (label,) = fields[fields["type"] == INT]
        note = np.frombuffer(label["arguments"].tobytes()[: ABOUT.itemsize], ABOUT)[0]
        if note["magic"] != MAGIC:
            return {}, None
        end = int(note["pointer"]) + int(note["size"])
        try:
            if end > self._length:
                raise ValueError
            about = json.loads(self._read(int(note["pointer"]), int(note["size"])))
        except (ValueError, RecursionError, OSError):
            raise self._damaged() from None
        names = about.get("classes", []) if isinstance(about, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._damaged()
        return about, self._table(end, n, CHECKSUM) if about.get("checksums") else None

    def content(self) -> str:
        return (
            super().content()
            if self._checksums is None
            else hashlib.sha256(np.ascontiguousarray(self._checksums).data).hexdigest()
        )

    def key(self, index: int) -> str:
        return str(index) if self._checksums is None else f"crc32 {self._checksums[index]} {self._sizes[index]}"

    def check(self, index: int) -> None:
        if (
            self._checksums is not None
            and zlib.crc32(np.ascontiguousarray(self.stored(index)).data) != self._checksums[index]
        ):
            raise ValueError("its bytes changed since they were written: the checksum differs")

    def stored(self, index: int) -> np.ndarray:
        """The stored bytes of a sample, uint8. Raises OSError if the file has become shorter."""
        return np.frombuffer(self._read(int(self.pointers[index]), int(self._sizes[index])), np.uint8)

    def _read(self, offset: int, size: int) -> bytes:
        """Bytes of the file. A memory map would end the process with SIGBUS if the file became shorter."""
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) < size:  # cut, or more than one call can read
            whole = bytearray(size)
            self._read_into(memoryview(whole), offset)
            return bytes(whole)
        return data

    def _read_into(self, out: memoryview, offset: int) -> None:
        done = 0
        while done < len(out):
            count = os.preadv(self._file.fileno(), [out[done:]], offset + done)
            if not count:
                raise OSError(f"{self.path} was cut to {os.fstat(self._file.fileno()).st_size:,} bytes while in use")
            done += count

    def read(self, index: int) -> bytes | np.ndarray:
        height, width = int(self.heights[index]), int(self.widths[index])
        if self.modes[index] == RAW:
            return self.stored(index).reshape(height, width, 3)
        if self.modes[index] != JPEG:
            raise ValueError(f"its storage mode {self.modes[index]} is unknown (known are {JPEG} JPEG and {RAW} raw)")
        encoded = self._read(int(self.pointers[index]), int(self._sizes[index]))
        head = header(encoded)
        if head[:2] != (height, width):
            raise ValueError(f"it is {head.width} x {head.height} pixels, and the file's table has {width} x {height}")
        return encoded

    def gather(self, indices: np.ndarray, out: np.ndarray) -> None:
        if self.canvas is None:
            return super().gather(indices, out)
        rows: Any = memoryview(out.reshape(len(out), -1))  # type: ignore[arg-type]
        for row, pointer in enumerate(self.pointers[indices].tolist()):
            self._read_into(rows[row : row + 1].cast("B"), pointer)
