"""Benchmark tables for the terminal and for Markdown, from the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastreg.benchmarks.record import COPY, OURS, Row, rows_of

NO_COMPARISON = "no comparison"


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """``(header, cells)`` of one suite; columns in which no row has a figure are left out."""
    ours = {row.name: row for row in rows if row.variant == OURS}
    compared = comparable(rows)

    def ratio(row: Row) -> str:
        if row.variant in (OURS, COPY) or row.name not in ours:
            return ""
        return f"{per_image(row) / per_image(ours[row.name]):.2f}" if compared else ""

    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("operation", lambda r: r.name),
        ("variant", lambda r: r.variant),
        ("images/s", lambda r: f"{r.images_per_second:,.0f}" if r.images else ""),
        ("time", lambda r: duration(r.us)),
        ("quartiles", lambda r: f"{duration(r.low)} .. {duration(r.high)}"),
        ("GB/s", lambda r: f"{r.gigabytes_per_second:,.1f}" if r.bytes else ""),
        ("% of copy", lambda r: f"{100 * r.of_copy:.0f}" if r.limit_us and r.variant != COPY else ""),
        ("launches", lambda r: str(r.more.get("launches", ""))),
        ("data wait", lambda r: f"{100 * r.more['data_wait']:.1f} %" if "data_wait" in r.more else ""),
        ("time / fastreg's", ratio),
    ]
    cells = [[cell(row) for _, cell in columns] for row in rows]
    filled = [j for j in range(len(columns)) if any(line[j] for line in cells)]
    return [columns[j][0] for j in filled], [[line[j] for j in filled] for line in cells]


def per_image(row: Row) -> float:
    """Microseconds per image, or of the call where it has none."""
    return row.us / max(row.images, 1)


def comparable(rows: list[Row]) -> bool:
    """Whether two peers or more are present; with fewer, a table makes no comparison."""
    return len({row.variant for row in rows} - {OURS, COPY}) >= 2


def duration(us: float) -> str:
    """Three significant digits in us, ms or s."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.3g} {unit}" if us / size < 1000 else f"{us / size:,.0f} {unit}"
    return f"{us:.3g} us"


def show(suite: str, record: dict[str, Any], say: Callable[[str], None] = print) -> None:
    """Print one suite of a record."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    content, machine = record["suites"].get(suite), record["machine"]
    if content is None:
        say(f"{suite}: nothing could be measured here")
        return
    rows = [row for _, row in rows_of(record, suite)]
    console = Console(width=max(140, Console().width))
    header, cells = table(rows)
    title = f"{suite} on {machine['name']}, {machine['cores']} cores" if machine["device"] == "cpu" else machine["name"]
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for j, name in enumerate(header):
        shown.add_column(name, justify="left" if j < 2 else "right", no_wrap=True)
    previous = None
    for row, cell in zip(rows, cells):
        shown.add_row("" if row.name == previous else cell[0], *cell[1:])
        previous = row.name
    with console.capture() as capture:
        console.print(shown)
    say(capture.get().rstrip())
    if not comparable(rows):
        say(NO_COMPARISON + ": fewer than two peers present")
    for line in remarks(content):
        say(line)


def remarks(content: dict[str, Any]) -> list[str]:
    """What must be read beside a suite's table: who was absent and why, and the settings."""
    absent: dict[tuple[str, str], list[str]] = {}
    for one in content["absent"]:
        absent.setdefault((one["variant"], one["reason"]), []).append(one["name"])
    lines = [f"absent: {variant} in {', '.join(names)}: {why}" for (variant, why), names in absent.items()]
    lines += content["settings"].get("notes", [])
    settings = {k: v for k, v in content["settings"].items() if k not in ("before", "after", "notes")}
    if settings:
        lines.append("settings: " + ", ".join(f"{key} {value}" for key, value in settings.items()))
    return lines
