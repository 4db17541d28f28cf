"""Write the generated tables of the READMEs: ``python -m fastreg.benchmarks.report.readme_tables [--check]``.

A block is the text between ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->`` in README.md and SCALING.md of
benchmarks/ and in the README.md of the repository. NAME is a suite, ``suites``, ``targets``, ``scaling`` or ``growth``.
All figures come from results/*.json. ``--check`` writes nothing and exits 1 when a file is out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastreg import files
from fastreg.benchmarks import RESULTS, record
from fastreg.benchmarks.compare import compare
from fastreg.benchmarks.record import OURS, Row, duration
from fastreg.benchmarks.report.terminal import NO_COMPARISON, comparable, remarks, table
from fastreg.benchmarks.suites import benchmarks
from fastreg.benchmarks.targets import CPU, TARGETS, Rows, Target

HERE = Path(__file__).resolve().parents[1]
FILES = (HERE / "README.md", HERE / "SCALING.md", HERE.parent / "README.md")
MISSING = "not yet measured"
_BLOCK = re.compile(r"<!-- bench:(\S+) -->\n.*?<!-- /bench:\1 -->", re.DOTALL)
Record = dict[str, Any]


def records(folder: Path = RESULTS) -> list[Record]:
    """Every record in the folder, GPUs first."""
    return sorted(map(record.read, sorted(folder.glob("*.json"))), key=lambda r: r["machine"]["device"] == "cpu")


def markdown(header: list[str], cells: list[list[str]]) -> str:
    """A Markdown table; columns after the second are right-aligned."""
    rule = ["---" if j < 2 else "---:" for j in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *cells])


def suite_block(suite: str, found: list[Record]) -> str:
    """A suite's table for each machine that ran it."""
    blocks = []
    for one in found:
        content = one["suites"].get(suite)
        if content is None:
            continue
        rows = [row for _, row in record.rows_of(one, suite)]
        blocks.append(f"**{title(one, content)}**")
        blocks.append(corruption_table(rows) if suite == "corruptions" else markdown(*table(rows)))
        if suite == "kernels" and any(row.limit_us for row in rows):
            blocks.append(f"![images per second against the limit](results/{one['machine']['slug']}.png)")
        if not comparable(rows):
            blocks.append(f"{NO_COMPARISON}: fewer than two peers present.")
        blocks.append("\n".join(f"* {line}" for line in remarks(content)))
    return "\n\n".join(blocks) or f"{MISSING.capitalize()}."


def title(one: Record, content: dict[str, Any]) -> str:
    machine, before = one["machine"], content["settings"].get("before", {})
    threads = f", {machine['cores']} cores, torch on {machine.get('threads')}" if machine["device"] == "cpu" else ""
    where = machine["name"] + threads
    load = f", load average {before['load_average'][0]}" if before.get("load_average") else ""
    commit = f", commit {content['commit'][:10]}" if content["commit"] else ""
    quick = ", quick" if content["quick"] else ""
    return f"{where}, torch {machine['versions'].get('torch')}, {content['date'][:10]}{commit}{load}{quick}"


def corruption_table(rows: list[Row]) -> str:
    """One line per corruption: images/s of its slowest severity, and over all severities (harmonic mean), peers too."""
    by_name: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        name = row.name.removeprefix("corrupt ").rpartition(" ")[0] if row.name[-1:].isdigit() else row.name
        name = row.name if row.name.startswith(("corrupt all", "jpeg")) else name
        by_name.setdefault(name, {}).setdefault(row.variant, []).append(row.us_per_image)
    peers = sorted({row.variant for row in rows} - {OURS})
    cells = []
    for name, times in by_name.items():
        rates = [f"{len(times[v]) * 1e6 / sum(times[v]):,.0f}" if v in times else "" for v in (OURS, *peers)]
        slowest = f"{1e6 / max(times[OURS]):,.0f}" if OURS in times else ""
        cells.append([name, slowest, *rates])
    return markdown(["corruption", "slowest severity, images/s", *(f"{v}, images/s" for v in (OURS, *peers))], cells)


def suites_block() -> str:
    """The suites and the content of each."""
    return markdown(["suite", "content"], [[f"`{name}`", row.help] for name, row in benchmarks().items()])


def targets_block(found: list[Record]) -> str:
    """The targets on a GPU, with the measured figures where there are any."""
    gpus = [one for one in found if one["machine"]["device"] == "cuda"]
    cells = []
    for target in (one for one in TARGETS if one.device != CPU):
        figures = []
        for one in gpus:
            rows = {(suite, row.name, row.variant): row for suite, row in record.rows_of(one)}
            if target.applies(one["machine"]) and (figure := measured(target, rows)):
                figures.append(figure if len(gpus) == 1 else f"{one['machine']['name']}: {figure}")
        cells.append([target.suite, target.name, target.device, target.text, ", ".join(figures)])
    header = ["suite", "operation", "device", "target", "measured"]
    if not any(line[-1] for line in cells):
        return f"On a GPU: {MISSING}.\n\n" + markdown(header[:-1], [line[:-1] for line in cells])
    empty = "" if all(line[-1] for line in cells) else f"\n\nEmpty cells: {MISSING}."
    return markdown(header, cells) + empty


def explained_block(found: list[Record]) -> str:
    """The targets that a record misses for a stated reason."""
    cells = [
        [one["machine"]["name"], missed.text, missed.reason]
        for one in found
        for missed in compare(one)
        if missed.reason
    ]
    return markdown(["machine", "missed target", "reason"], cells) if cells else "None."


def measured(target: Target, rows: Rows) -> str:
    """The worst figure of the rows that a target matches; empty where there is none."""
    values = [value for _, value in target.values(rows)]
    if not values:
        return ""
    worst = min(values) if target.at_least else max(values)
    shown: dict[str, Callable[[float], str]] = {
        "us": duration,
        "launches": lambda v: f"{v:g}",
        "images_per_second": lambda v: f"{v:,.0f} images/s",
        "of_copy": lambda v: f"{100 * v:.0f} %",
        "ratio": lambda v: f"{v:.3f}",
    }
    return shown[target.measure](worst)


def blocks(found: list[Record]) -> dict[str, str]:
    """Every block by name."""
    from fastreg.benchmarks.report.scaling import growth_block, scaling_block

    made = {suite: suite_block(suite, found) for suite in benchmarks()}
    made |= {"suites": suites_block(), "targets": targets_block(found), "explained": explained_block(found)}
    return made | {"scaling": scaling_block(found), "growth": growth_block(found)}


def rewritten(text: str, made: dict[str, str], where: str = "the file") -> str:
    """Replace every block of a text.

    Args:
        text: Markdown with blocks.
        made: the blocks by name.
        where: name of the file, for the error.

    Raises:
        KeyError: the text has a block that ``made`` lacks.
    """

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in made:
            raise KeyError(f"{where} has a block bench:{name}; known are {', '.join(made)}")
        return f"<!-- bench:{name} -->\n{made[name]}\n<!-- /bench:{name} -->"

    return _BLOCK.sub(one, text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the generated tables of the READMEs.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is out of date")
    given = parser.parse_args(arguments)
    found = records()
    made = blocks(found)
    stale = []
    for path in FILES:
        if not path.is_file():
            continue
        text = path.read_text()
        new = rewritten(text, made, path.name)
        if new != text:
            stale.append(path.name)
            if not given.check:
                files.atomic_write(path, new)
    if not given.check:
        from fastreg.benchmarks.report.plot import draw

        for one in found:
            draw(one, RESULTS / f"{one['machine']['slug']}.png")
    print(
        f"out of date: {', '.join(stale)}" if given.check and stale else f"rewritten: {', '.join(stale) or 'nothing'}"
    )
    return int(given.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
