"""Benchmark record: rows by suite in one JSON per machine, checked when read and written as a whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from fastreg import files
from fastreg.benchmarks.timing import Timing
from fastreg.errors import InputError

FORMAT = "fastreg-bench-1"
OURS, COPY = "fastreg", "copy"  # variants that are no peers
REFERENCE = "reference"  # an operation in plain PyTorch, which a CPU without numba runs
FAILED = "it fails:"  # start of the reason of a variant that is installed but raises


@dataclass(frozen=True)
class Row:
    """One measurement. Rates and ratios are computed from ``us`` when shown, never stored."""

    name: str  # the operation, as in the registry, with its case: "augment mixup"
    variant: str  # "fastreg", "copy", or a peer
    us: float  # microseconds of one call, median
    low: float  # first quartile
    high: float  # third quartile
    runs: int  # samples behind them
    images: int = 0  # images (or rows of logits) in one call; 0: the row has no rate
    bytes: int = 0  # bytes that one call must move at least; 0: not limited by memory
    limit_us: float = 0.0  # time of a copy with the same mix of bytes in the same run; 0: not measured
    more: dict[str, Any] = field(default_factory=dict)  # how, data_wait, launches, peak_of_output ...

    @property
    def us_per_image(self) -> float:
        """Microseconds per image; of the whole call if the row has no images."""
        return self.us / max(self.images, 1)

    @classmethod
    def of(cls, name: str, variant: str, timing: Timing, **rest: Any) -> Row:
        """The row of a timing; ``rest`` are further fields."""
        more = {"how": timing.how, **rest.pop("more", {})}
        us, low, high = (float(f"{value:.5g}") for value in timing[:3])
        return cls(name, variant, us, low, high, timing.runs, more=more, **rest)

    @property
    def images_per_second(self) -> float:
        return 1e6 * self.images / self.us

    @property
    def gigabytes_per_second(self) -> float:
        return 1e-3 * self.bytes / self.us

    @property
    def of_copy(self) -> float:
        """Speed as a fraction of the same-mix copy; 0 where none was measured."""
        return self.limit_us / self.us


@dataclass(frozen=True)
class Absent:
    """A variant that did not run, with the reason."""

    name: str
    variant: str
    reason: str


_SUITE_KEYS = {
    "date": str,
    "commit": (str, type(None)),
    "seconds": (int, float),
    "quick": bool,
    "settings": dict,
    "rows": list,
    "absent": list,
}
_MACHINE_KEYS = {"slug": str, "device": str, "name": str, "commit": (str, type(None)), "versions": dict}


def rows_of(record: dict[str, Any], suite: str | None = None) -> Iterator[tuple[str, Row]]:
    """``(suite, row)`` for every row of a record, or of one suite."""
    for name, content in record["suites"].items():
        if suite in (None, name):
            for row in content["rows"]:
                yield name, Row(**row)


def check(record: Any, where: str = "the record") -> None:
    """Check that ``record`` is a benchmark record.

    Raises:
        InputError: it is not; the message names the first fault.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{where} is not a benchmark record ({FORMAT}): write one with fastreg bench WHAT --out DIR.")
    _keys(record.get("machine"), _MACHINE_KEYS, f"{where}, machine")
    if not isinstance(record.get("suites"), dict):
        raise InputError(f"{where} has no suites.")
    for suite, content in record["suites"].items():
        _keys(content, _SUITE_KEYS, f"{where}, suite {suite}")
        seen = set()
        for number, row in enumerate(content["rows"]):
            here = f"{where}, suite {suite}, row {number + 1}"
            _row(row, here)
            key = row["name"], row["variant"]
            if key in seen:
                raise InputError(f"{here} repeats {key[0]} / {key[1]}.")
            seen.add(key)
        for absent in content["absent"]:
            _keys(absent, dict.fromkeys(("name", "variant", "reason"), str), f"{where}, suite {suite}, absent")


def _row(row: Any, here: str) -> None:
    hints = get_type_hints(Row)
    known = {f.name for f in fields(Row)}
    if not isinstance(row, dict) or set(row) != known:
        raise InputError(f"{here} must have exactly the keys {', '.join(sorted(known))}.")
    for key, value in row.items():
        kind = (int, float) if hints[key] is float else hints[key] if key != "more" else dict
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{here} ({row['name']} / {row['variant']}): {key} is {value!r}.")
    times = row["low"], row["us"], row["high"]
    if not all(math.isfinite(t) and t > 0 for t in times) or not times[0] <= times[1] <= times[2] or row["runs"] < 1:
        raise InputError(
            f"{here} ({row['name']} / {row['variant']}): the median {row['us']} must be between its quartiles "
            f"{row['low']} and {row['high']}, all above 0, over at least one run."
        )


def _keys(content: Any, kinds: dict[str, Any], here: str) -> None:
    for key, kind in kinds.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise InputError(f"{here} lacks {key!r}, or it has the wrong type.")


def suite(
    date: str,
    seconds: float,
    quick: bool,
    settings: dict[str, Any],
    rows: list[Row],
    absent: list[Absent],
    commit: str | None = None,
) -> dict[str, Any]:
    """One suite as the JSON stores it; ``commit`` is the measured one."""
    return {
        "date": date,
        "commit": commit,
        "seconds": round(seconds, 1),
        "quick": quick,
        "settings": settings,
        "rows": [asdict(row) for row in rows],
        "absent": [asdict(one) for one in absent],
    }


def read(path: Path | str) -> dict[str, Any]:
    """Read and check a record.

    Raises:
        InputError: the file is missing, or is not a benchmark record.
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"no benchmark record at {path}: write one with fastreg bench WHAT --out DIR.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).") from None
    check(record, str(path))
    return record


def merge(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write ``record`` to ``path``, keep suites that only the existing file has, and return the written record."""
    if path.is_file():
        old = read(path)
        record = {**record, "suites": {**old["suites"], **record["suites"]}}
    check(record, str(path))
    files.write_json(path, record)
    return record


def duration(us: float) -> str:
    """Three significant digits in us, ms or s."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.3g} {unit}" if us / size < 1000 else f"{us / size:,.0f} {unit}"
    return f"{us:.3g} us"
