"""Benchmark tables, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastreg.benchmarks.record import COPY, OURS, Row, duration, rows_of

NO_COMPARISON = "no comparison"


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """``(header, cells)`` of one suite, without columns in which no row has a figure."""
    ours = {row.name: row for row in rows if row.variant == OURS}
    compared = comparable(rows)

    def ratio(row: Row) -> str:
        if row.variant in (OURS, COPY) or row.name not in ours:
            return ""
        return f"{ratio_of(row, ours[row.name]):.2f}" if compared else ""

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
        ("peak / output", lambda r: f"{r.more['peak_of_output']:.2f}" if "peak_of_output" in r.more else ""),
        ("time / fastreg's", ratio),
    ]
    cells = [[cell(row) for _, cell in columns] for row in rows]
    filled = [j for j in range(len(columns)) if any(line[j] for line in cells)]
    return [columns[j][0] for j in filled], [[line[j] for j in filled] for line in cells]


def ratio_of(row: Row, base: Row) -> float:
    """Time per image over that of ``base``; if both took turns with one other case, by their ratios to it."""
    if "beside" in row.more and row.more["beside"] == base.more.get("beside"):
        return row.us / row.more["beside_us"] / (base.us / base.more["beside_us"])
    return row.us_per_image / base.us_per_image


def comparable(rows: list[Row]) -> bool:
    """Whether two or more peers are present; with fewer, a table makes no comparison."""
    return len({row.variant for row in rows} - {OURS, COPY}) >= 2


def suite_text(suite: str, record: dict[str, Any]) -> str:
    """One suite of a record as text for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    content, machine = record["suites"].get(suite), record["machine"]
    if content is None:
        return f"{suite}: not measured on this machine"
    rows = [row for _, row in rows_of(record, suite)]
    console = Console(width=max(140, Console().width))
    header, cells = table(rows)
    where = machine["name"] + (f", {machine['cores']} cores" if machine["device"] == "cpu" else "")
    shown = Table(title=f"{suite} on {where}", title_justify="left", box=SIMPLE_HEAD)
    for j, name in enumerate(header):
        shown.add_column(name, justify="left" if j < 2 else "right", no_wrap=True)
    previous = None
    for row, cell in zip(rows, cells):
        shown.add_row("" if row.name == previous else cell[0], *cell[1:])
        previous = row.name
    with console.capture() as capture:
        console.print(shown)
    comparison = [] if comparable(rows) else [f"{NO_COMPARISON}: fewer than two peers present"]
    return "\n".join([capture.get().rstrip(), *comparison, *remarks(content)])


def remarks(content: dict[str, Any]) -> list[str]:
    """Lines below a suite's table: absent variants with the reason, notes, settings."""
    absent: dict[tuple[str, str], list[str]] = {}
    for one in content["absent"]:
        absent.setdefault((one["variant"], one["reason"]), []).append(one["name"])
    lines = [f"absent: {variant} in {', '.join(names)}: {why}" for (variant, why), names in absent.items()]
    lines += content["settings"].get("notes", [])
    settings = {k: v for k, v in content["settings"].items() if k not in ("before", "after", "notes")}
    if settings:
        lines.append("settings: " + ", ".join(f"{key} {value}" for key, value in settings.items()))
    return lines
