"""Compare a benchmark record with the targets: ``python -m fastreg.benchmarks.compare FILE [--against RECORD]``.

A row fails when it misses a target for that machine by more than the target's tolerance, unless ``EXPLAINED`` in
targets.py has the reason, or when it is slower than the same row of an earlier record of that machine by more than
``SLOWER`` and more than the quartiles of both rows explain. The earlier record is by default the one in
benchmarks/results. Exit code 1: a row failed, or nothing could be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.benchmarks import RESULTS, record
from fastreg.benchmarks.record import OURS, Row, duration
from fastreg.benchmarks.targets import EXPLAINED, TARGETS, Rows, Target
from fastreg.errors import InputError

SLOWER = {"cuda": 0.10, "cpu": 0.35}


class Comparison(NamedTuple):
    """One row against one target or one earlier row; ``text`` names both."""

    failed: bool
    text: str
    reason: str = ""  # why a target is missed; the comparison has not failed then


def compare(found: dict[str, Any], earlier: dict[str, Any] | None = None) -> list[Comparison]:
    """Compare a record with the targets of its machine, then with an earlier record of the same machine.

    Raises:
        InputError: one of the two is not a benchmark record.
    """
    record.check(found)
    rows = {(suite, row.name, row.variant): row for suite, row in record.rows_of(found)}
    compared = [c for target in TARGETS if target.applies(found["machine"]) for c in _with_target(target, rows)]
    if earlier is not None:
        record.check(earlier, "the earlier record")
        slower = SLOWER[found["machine"]["device"]]
        compared += [c for suite, row in record.rows_of(earlier) for c in _with_earlier(suite, row, rows, slower)]
    return compared


def _with_target(target: Target, rows: Rows) -> Iterator[Comparison]:
    for name, value in target.values(rows):
        text = f"{target.suite}: {name}: {target.text} (tolerance {target.tolerance:.0%}), is {value:,.4g}"
        missed = target.missed(value)
        reason = next((one.reason for one in EXPLAINED if missed and one.covers(target, name, value)), "")
        yield Comparison(missed and not reason, text, reason)


def _with_earlier(suite: str, then: Row, rows: Rows, slower: float) -> Iterator[Comparison]:
    now = rows.get((suite, then.name, then.variant))
    if now is None or then.variant != OURS or now.images != then.images:
        return
    spread = max(slower, then.high / then.us - 1, 1 - now.low / now.us)
    yield Comparison(
        now.us > then.us * (1 + min(spread, 0.9)),
        f"{suite}: {now.name}: {duration(now.us)}, was {duration(then.us)} (at most {min(spread, 0.9):.0%} slower)",
    )


def summary(compared: list[Comparison]) -> list[str]:
    """Lines for the terminal: each failed comparison, each missed target with its reason, then the count."""
    explained = [f"missed {one.text}: {one.reason}" for one in compared if one.reason]
    lines = [f"FAILED {one.text}" for one in compared if one.failed] + explained
    held = sum(not one.failed and not one.reason for one in compared)
    count = f"{held} of {len(compared)} comparisons hold"
    lines.append(f"{count}, {len(explained)} are missed for a stated reason" if explained else count)
    if not compared:
        lines.append("nothing to compare: no target is for this machine, and there is no earlier record of it")
    return lines


def exit_code(compared: list[Comparison]) -> int:
    """1 when a comparison failed or there is none, else 0."""
    return int(not compared or any(one.failed for one in compared))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastreg.benchmarks.compare", description="Compare a benchmark record with the targets."
    )
    parser.add_argument("file", help="a record written by fastreg bench --out or by the GPU check")
    parser.add_argument("--against", help="an earlier record of that machine; default: the one in benchmarks/results")
    given = parser.parse_args(arguments)
    try:
        found = record.read(given.file)
        path = Path(given.against) if given.against else RESULTS / f"{found['machine']['slug']}.json"
        compared = compare(found, record.read(path) if given.against or path.is_file() else None)
    except InputError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print("\n".join(summary(compared)))
    return exit_code(compared)


if __name__ == "__main__":
    sys.exit(main())
