"""What a benchmark leaves: rows, gathered by suite, in one JSON per machine; written whole, checked when read."""

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
FAILED = "it fails:"  # how the reason begins for what is there but does not run


@dataclass(frozen=True)
class Row:
    """One measured thing. Rates and ratios are computed from ``us`` when shown, never stored."""

    name: str  # the operation, as in the registry, with its case: "augment mixup"
    variant: str  # who does it: "fastreg", "copy", or a peer
    us: float  # microseconds of one call, median
    low: float  # first quartile
    high: float  # third quartile
    runs: int  # samples behind them
    images: int = 0  # images (or rows of logits) in one call; 0: images per second mean nothing here
    bytes: int = 0  # bytes that one call must move at least; 0: not a matter of memory
    limit_us: float = 0.0  # what a copy with the same mix of bytes took in the same run; 0: not measured
    more: dict[str, Any] = field(default_factory=dict)  # data_wait, launches, how it was timed, settings

    @classmethod
    def of(cls, name: str, variant: str, timing: Timing, **rest: Any) -> Row:
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
    """A variant that did not run, and why."""

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
    """Raise InputError naming the first thing in which ``record`` is not a benchmark record."""
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
            f"{here} ({row['name']} / {row['variant']}): the median {row['us']} must lie between its quartiles "
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
    """The content of one suite, as it stands in the JSON; ``commit`` is the one that was measured."""
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
    """A checked record. Raises InputError when the file is missing or is not one."""
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
    """Write ``record`` to ``path``; suites that only the file there has are kept. Returns what was written."""
    if path.is_file():
        old = read(path)
        record = {**record, "suites": {**old["suites"], **record["suites"]}}
    check(record, str(path))
    files.write_json(path, record)
    return record
