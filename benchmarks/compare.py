"""Judge a benchmark record: ``python benchmarks/judge.py FILE [--against RECORD]``; exit 1 when something fails.

A row fails when a target for that machine is missed by more than its tolerance, or when it is slower than the same row
of an earlier record of the same machine (by default the one in benchmarks/results/) by more than ``SLOWER`` and more
than both rows' quartiles explain.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.benchmarks import RESULTS, record
from fastreg.benchmarks.record import OURS, Row
from fastreg.benchmarks.report.terminal import duration
from fastreg.benchmarks.targets import TARGETS, Rows, Target
from fastreg.errors import InputError

SLOWER = {"cuda": 0.10, "cpu": 0.35}


class Verdict(NamedTuple):
    """One judged row: ``text`` names it and what was asked."""

    failed: bool
    text: str


def judge(found: dict[str, Any], against: dict[str, Any] | None = None) -> list[Verdict]:
    """Every target that applies to the record's machine and has its rows, then every row of the earlier record."""
    record.check(found)
    rows = {(suite, row.name, row.variant): row for suite, row in record.rows_of(found)}
    verdicts = [v for target in TARGETS if _applies(target, found["machine"]) for v in _target(target, rows)]
    if against is not None:
        record.check(against, "the earlier record")
        slower = SLOWER[found["machine"]["device"]]
        verdicts += [v for suite, row in record.rows_of(against) for v in _earlier(suite, row, rows, slower)]
    return verdicts


def _applies(target: Target, machine: dict[str, Any]) -> bool:
    return machine["device"] == "cpu" if target.device == "cpu" else target.device in machine["name"]


def _target(target: Target, rows: Rows) -> Iterator[Verdict]:
    for name, value in target.values(rows):
        text = f"{target.suite}: {name}: {target.asked} (tolerance {target.tolerance:.0%}), is {value:,.4g}"
        yield Verdict(target.missed(value), text)


def _earlier(suite: str, then: Row, rows: Rows, slower: float) -> Iterator[Verdict]:
    now = rows.get((suite, then.name, then.variant))
    if now is None or then.variant != OURS or now.images != then.images:
        return
    spread = max(slower, then.high / then.us - 1, 1 - now.low / now.us)
    yield Verdict(
        now.us > then.us * (1 + min(spread, 0.9)),
        f"{suite}: {now.name}: {duration(now.us)}, was {duration(then.us)} (at most {min(spread, 0.9):.0%} slower)",
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="judge.py", description="Judge a benchmark record.")
    parser.add_argument("file", help="a record that fastreg bench --out or the gate wrote")
    parser.add_argument("--against", help="an earlier record of that machine; default: the one in benchmarks/results")
    given = parser.parse_args(arguments)
    try:
        found = record.read(given.file)
        earlier = Path(given.against) if given.against else RESULTS / f"{found['machine']['slug']}.json"
        against = record.read(earlier) if given.against or earlier.is_file() else None
        verdicts = judge(found, against)
    except InputError as error:
        print(f"judge: {error}", file=sys.stderr)
        return 2
    return report(verdicts)


def report(verdicts: list[Verdict]) -> int:
    """Print the failures by name; 1 when there are some, or when nothing could be judged."""
    failures = [verdict.text for verdict in verdicts if verdict.failed]
    for text in failures:
        print(f"FAILED {text}")
    print(f"{len(verdicts) - len(failures)} of {len(verdicts)} judgements hold")
    if not verdicts:
        print("nothing could be judged: no target is for this machine, and there is no earlier record of it")
    return int(bool(failures) or not verdicts)


if __name__ == "__main__":
    sys.exit(main())
